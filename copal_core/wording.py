"""What a run removes, in the words that stand beside its protocol."""

from __future__ import annotations

from copal_core.amounts import has_own_amount
from copal_core.config import Method, RunConfig, Structure
from copal_core.lowrank import LOWRANK
from copal_core.neurons import NEURONS

_SHARE = 0.1  # of every selector, unless its options say otherwise


def neuron_share(method: Method) -> float | None:
    """The share of neurons that a method removes; None for a method that removes none."""
    return float(method.options.get("share", _SHARE)) if method.name in NEURONS.names() else None


def removed(config: RunConfig) -> str:
    """'50 % per row', '10 %, 30 % of the neurons', or both where a run has methods of both kinds."""
    shares = [neuron_share(method) for method in config.methods]
    listed = sorted({share for share in shares if share is not None})
    if not listed:
        return of_weights(config.structure)
    return (
        _of_neurons(listed)
        if None not in shares
        else f"{of_weights(config.structure)}; {_of_neurons(listed)}"
    )


def removed_by(config: RunConfig, method: str) -> str:
    """What one method of the run removes. Factors have no mask; they keep as many bytes as the structure's."""
    parsed = Method.parse(method)
    share = neuron_share(parsed)
    if share is not None:
        return _of_neurons([share])
    if has_own_amount(parsed):
        return f"{100 * (1 - float(parsed.options['keep'])):.4g} % of the bytes"
    words = of_weights(config.structure)
    return f"bytes as {words}" if parsed.name in LOWRANK.names() else words


def of_weights(structure: Structure) -> str:
    """'50 % per row', or '75 % (1:4)': N:M names what is kept."""
    return f"{100 * structure.removed:.4g} % ({structure})" if structure.kind == "n:m" else str(structure)


def _of_neurons(shares: list[float]) -> str:
    return f"{', '.join(f'{100 * share:.3g} %' for share in shares)} of the neurons"
