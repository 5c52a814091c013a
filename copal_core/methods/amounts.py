"""What decides how much a method removes: the run's structure, or an option of the method itself."""

from __future__ import annotations

from copal_core.config import Method, Structure
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.stored_size import structure_share


def kept_share(method: Method, structure: Structure) -> float:
    """The share of the dense bytes that a low-rank method may store: its own `keep`, or as the structure."""
    return float(method.options.get("keep") or structure_share(structure))


def has_own_amount(method: Method) -> bool:
    """Whether the run's structure changes nothing in what `method` leaves: neurons, and low rank with `keep`."""
    if method.name in NEURONS.names():
        return True
    return method.name in LOWRANK.names() and bool(method.options.get("keep"))


def amount_words(method: Method, structure: Structure) -> str:
    """How much goes, such as '50 % per row', '10 % of the neurons' or '70 % of the bytes kept'."""
    if not has_own_amount(method):
        return str(structure)
    if method.name in NEURONS.names():
        share = method.options.get("share")
        return f"{100 * float(share):.4g} % of the neurons" if share is not None else "whole neurons"
    return f"{100 * float(method.options['keep']):.4g} % of the bytes kept"
