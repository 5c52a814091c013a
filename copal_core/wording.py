"""What a run removes, in the words that stand beside its protocol."""

from __future__ import annotations

from copal_core.config import Method, RunConfig
from copal_core.neurons import NEURONS

_SHARE = 0.1  # of every selector, unless its options say otherwise


def neuron_share(method: Method) -> float | None:
    """The share of neurons that a method removes; None for a method that removes none."""
    return float(method.options.get("share", _SHARE)) if method.name in NEURONS.names() else None


def removed(config: RunConfig) -> str:
    """'50% per row', '10%, 30% of the neurons', or both where a run has methods of both kinds."""
    shares = [neuron_share(method) for method in config.methods]
    listed = sorted({share for share in shares if share is not None})
    of_neurons = f"{', '.join(f'{share:.3g}%' for share in (100 * s for s in listed))} of the neurons"
    if not listed:
        return str(config.structure)
    return of_neurons if None not in shares else f"{config.structure}; {of_neurons}"
