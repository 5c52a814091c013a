"""How much a method removes, as a number and in the words that stand beside a protocol.

The run's structure decides it, or an option of the method itself.
"""

from __future__ import annotations

from copal_core.config import Method, RunConfig, Structure
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.stored_size import structure_share

_SHARE = 0.1  # of every selector, unless its options say otherwise


def kept_share(method: Method, structure: Structure) -> float:
    """The share of the dense bytes that a low-rank method may store: its own `keep`, or as the structure."""
    return float(method.options.get("keep") or structure_share(structure))


def has_own_amount(method: Method) -> bool:
    """Return True where the run's structure changes nothing in what `method` leaves: neurons, low rank with `keep`."""
    if method.name in NEURONS.names():
        return True
    return method.name in LOWRANK.names() and bool(method.options.get("keep"))


def amount_words(method: Method, structure: Structure) -> str:
    """Return how much goes, such as '50 % per row', '10 % of the neurons' or '70 % of the bytes kept'."""
    if not has_own_amount(method):
        return str(structure)
    if method.name in NEURONS.names():
        share = method.options.get("share")
        return f"{100 * float(share):.4g} % of the neurons" if share is not None else "whole neurons"
    return f"{100 * float(method.options['keep']):.4g} % of the bytes kept"


def neuron_share(method: Method) -> float | None:
    """The share of neurons that a method removes; None for a method that removes none."""
    return float(method.options.get("share", _SHARE)) if method.name in NEURONS.names() else None


def own_amount(method: Method) -> tuple[str, float] | None:
    """Return what a method's own option removes, and its share: ('neurons', 0.1), ('bytes', 0.3).

    None where the run's structure decides.
    """
    share = neuron_share(method)
    if share is not None:
        return "neurons", share
    return ("bytes", 1 - float(method.options["keep"])) if has_own_amount(method) else None


def removed(config: RunConfig) -> str:
    """'50 % per row', '10 %, 30 % of the neurons', '20 % of the bytes', or several where the methods are unlike."""
    amounts = [own_amount(method) for method in config.methods]
    parts = [of_weights(config.structure)] if None in amounts else []
    for unit in ("neurons", "bytes"):
        shares = sorted({amount[1] for amount in amounts if amount is not None and amount[0] == unit})
        parts += [_of(unit, shares)] if shares else []
    return "; ".join(parts)


def removed_by(config: RunConfig, method: str) -> str:
    """The amount that one method of the run removes; factors have no mask, and keep as many bytes as the structure."""
    parsed = Method.parse(method)
    amount = own_amount(parsed)
    if amount is not None:
        return _of(amount[0], [amount[1]])
    words = of_weights(config.structure)
    return f"bytes as {words}" if parsed.name in LOWRANK.names() else words


def trained_words(tokens: int, distinct: int) -> str:
    """'training-free', or such as 'trained on 8,192 distinct tokens, 4.0 passes'."""
    if not tokens:
        return "training-free"
    return f"trained on {distinct:,} distinct tokens, {tokens / distinct:.1f} passes"


def of_weights(structure: Structure) -> str:
    """'50 % per row', or '75 % (1:4)': N:M names what is kept."""
    return f"{100 * structure.removed:.4g} % ({structure})" if structure.kind == "n:m" else str(structure)


def _of(unit: str, shares: list[float]) -> str:
    return f"{', '.join(f'{100 * share:.3g} %' for share in shares)} of the {unit}"
