"""Methods that one layer is compared by, without a forward pass and, here, without torch."""

from __future__ import annotations

from copal_core.methods.facts import criteria_on
from copal_core.statistics.prepared import HELD

RANKED = ("svd", "whitened-svd", "basel")  # whose error has a closed form over all ranks


def masks() -> tuple[str, ...]:
    """Return the criteria that the prepared statistics of layers suffice for."""
    return criteria_on(HELD)
