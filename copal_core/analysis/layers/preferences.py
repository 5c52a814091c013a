"""Preference of each layer for a mask or low rank: every layer's error over the budgets, without a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from copal_core.analysis.layers import compared
from copal_core.analysis.layers.curves import layer_curves
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.errors import Cancelled
from copal_core.statistics.library import LayerLibrary, combined
from copal_core.statistics.prepared import Entry, Report, errors_file
from copal_core.system import files

SHARES = tuple(round(share, 4) for share in np.linspace(0.1, 0.95, 18)) + (0.5625,)
_FLOPS = 3e9  # a layer: masks are measured on a sample of its rows


def preferences(
    library: LayerLibrary,
    fit: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    report: Callable[[str, int, int], None] = lambda label, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[np.float64]]:
    """'share' (n,) increasing, and method -> relative output error (blocks, 7, n), projections as in PROJECTIONS.

    Methods: all masks, svd, whitened-svd and basel, all fitted to and measured on the text of `fit` together (all
    domains by default). Raises Cancelled when `should_stop` says so.
    """
    asked, masks = np.array(sorted(shares)), compared.masks()
    found = {
        method: np.zeros((library.blocks, len(PROJECTIONS), len(asked)))
        for method in (*masks, *compared.RANKED)
    }
    for block in range(library.blocks):
        for place, projection in enumerate(PROJECTIONS):
            if should_stop():
                raise Cancelled("comparing the layers was cancelled")
            report("comparing layers", block * len(PROJECTIONS) + place, library.blocks * len(PROJECTIONS))
            given = combined(library.statistics(block, projection), fit or library.names)
            weight = library.weight(block, projection)
            curves = layer_curves(
                weight, {"text": given}, masks=masks, sparsities=(0.1, 0.3, 0.5, 0.7, 0.9), flops=_FLOPS
            )
            for number, share in enumerate(asked):
                for reading in curves.readings(float(share)):
                    if reading.method in found:
                        found[reading.method][block, place, number] = reading.error
    return {"share": asked, **found}


def compare_layers(entry: Entry, report: Report) -> None:
    """Write every layer's errors over the budgets, for the map of the whole model; `Entry.errors` reads them."""
    found = preferences(entry.library(), entry.domains, report=report)
    files.write_arrays(errors_file(entry.key), found)
