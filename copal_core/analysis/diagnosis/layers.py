"""Everything about one linear layer that a look at its single weights needs, gathered once and kept as one file.

    weight                    (out, in) dense, float32
    removed.N  value.N        of result N: zeros packed to bits; its values where they are not simply dense ones
    score.CRITERION.D         (out, in) on domain D, under dense propagation
    threshold.CRITERION.D     of the layer, where scores are compared within it
    inputs.D  outputs.D       (in, n) and (out, n), without bias: the first n tokens of domain D, dense model

Of a layer too large for that, outputs `first` to `first` + rows - 1 are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copal_core.analysis.diagnosis.evidence import (
    MOST_TOKENS,
    Evidence,
    Place,
    band_of,
    evidence_file,
    forget_old,
)
from copal_core.analysis.diagnosis.kept import domain_windows, kept_results
from copal_core.analysis.diagnosis.pieces import pieces_of
from copal_core.checkpoints import Checkpoint, locate
from copal_core.checkpoints.backbone import linears
from copal_core.checkpoints.layout import GROUP_OF, GROUPS
from copal_core.compression.restore import variant
from copal_core.errors import Cancelled, NumericalError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import build_criterion
from copal_core.methods.masks import select
from copal_core.statistics.accumulators import InputSquareSum, Statistic
from copal_core.statistics.blockwise import HiddenStates
from copal_core.statistics.capture import InputsSeen
from copal_core.store.run_store import RunStore
from copal_core.system import files

Report = Callable[[str, int, int], None]
Arrays = dict[str, NDArray[Any]]


def read_layer(store: RunStore, place: Place, row: int, report: Report) -> Evidence:
    """Return the evidence of a layer, gathered first where it is not there. row: the output that must be in it."""
    path = evidence_file(store, place)
    if not path.is_file() or row not in Evidence(path).rows:
        gather_layer(store, locate(store.config.checkpoint), place, row, report)
    return Evidence(path)


def gather_layer(
    store: RunStore,
    checkpoint: Checkpoint,
    place: Place,
    row: int,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write the layer's file; one dense pass over the blocks before it. row: the output that must be in it."""
    protocol = store.config.protocol
    backbone = checkpoint.open(protocol.device, protocol.dtype)
    windows = [
        torch.from_numpy(domain_windows(store, index, checkpoint)["calibration"])
        for index in range(len(store.domains))
    ]
    states = HiddenStates(backbone, windows)
    for index in range(place.block):
        if should_stop():
            raise Cancelled("looking at the layer was cancelled")
        report(f"reading {', '.join(store.domains)}", index, place.block + 2)
        with backbone.block(index) as block:
            states.advance(block)
    report("scoring the layer", place.block, place.block + 2)
    with backbone.block(place.block) as block:
        out, columns = linears(block)[place.projection].weight.shape
        band = band_of(row, out, columns, len(CRITERIA.names()) * len(windows))
        arrays: Arrays = {"weight": _numpy(linears(block)[place.projection].weight.float()[band])}
        arrays |= _activations(states, block, place.projection, band)
        arrays |= _scores(store, states, block, place.projection, band)
        report("reading what each step left", place.block + 1, place.block + 2)
        arrays |= _results(store, block, place, band, arrays["weight"])
    arrays["first"] = np.array(band.start)
    about = {
        "results": [[one.method, one.step] for one in kept_results(store)],
        "pieces": [_pieces(checkpoint, one) for one in windows],
    }
    path = evidence_file(store, place)
    files.write_arrays(path, arrays, {"about": json.dumps(about)})
    forget_old(path)


def _pieces(checkpoint: Checkpoint, windows: Tensor) -> list[str]:
    """The text of every token whose input is kept; of several that make one character, the first has it."""
    texts = []
    for piece in pieces_of(windows.reshape(-1)[:MOST_TOKENS].tolist(), checkpoint.tokenizer()):
        texts += [piece.text] + [""] * (piece.stop - piece.start - 1)
    return texts


def _activations(states: HiddenStates, block: nn.Module, projection: str, band: slice) -> Arrays:
    """What the layer reads and writes for the first tokens of every domain."""
    found: Arrays = {}
    for number, batches in enumerate(states.sets):
        inputs, outputs, seen = [], [], 0
        with _listening(linears(block)[projection]) as heard:
            for hidden in batches:
                if seen >= MOST_TOKENS:
                    break
                with suppress(InputsSeen):
                    states.through(block, [hidden])
                x, y = heard.pop()
                inputs.append(x.reshape(-1, x.shape[-1]).float())  # (tokens, in)
                outputs.append(y.reshape(-1, y.shape[-1])[:, band].float())  # (tokens, rows)
                seen += len(inputs[-1])
        found[f"inputs.{number}"] = _numpy(torch.cat(inputs)[:MOST_TOKENS].T)
        found[f"outputs.{number}"] = _numpy(torch.cat(outputs)[:MOST_TOKENS].T)
    return found


@contextmanager
def _listening(layer: nn.Linear) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep the layer's input and its output without the bias, as COPAL sees them, and leave the block there."""
    heard: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        heard.append((arguments[0], output if layer.bias is None else output - layer.bias))
        raise InputsSeen

    handle = layer.register_forward_hook(hook)
    try:
        yield heard
    finally:
        handle.remove()


def _scores(store: RunStore, states: HiddenStates, block: nn.Module, projection: str, band: slice) -> Arrays:
    """Every criterion with its usual settings, on every domain by itself."""
    criteria = {name: build_criterion(name, {}) for name in CRITERIA.names()}
    wanted: dict[str, Statistic] = {InputSquareSum.name: InputSquareSum()}
    for criterion in criteria.values():
        wanted |= {statistic.name: statistic for statistic in criterion.statistics()}
    names, layers = GROUPS[GROUP_OF[projection]], linears(block)
    counts, weight = [layers[name].weight.shape[0] for name in names], layers[projection].weight.data
    found: Arrays = {}
    for number, gathered in enumerate(states.calibrate(block, list(wanted.values()), advance=False)):
        statistics = gathered.groups[GROUP_OF[projection]].by_rows(counts)[names.index(projection)]
        for name, criterion in criteria.items():
            try:
                scores = criterion.score(weight, statistics)
                chosen = select(scores, store.config.structure)
            except NumericalError:
                continue  # this criterion has no answer here; the page leaves its line out
            found[f"score.{name}.{number}"] = _numpy(scores[band])
            structure = store.config.structure
            if chosen.thresholds is not None and structure.group == "layer":
                found[f"threshold.{name}.{number}"] = _numpy(chosen.thresholds.reshape(()))
    return found


def _results(
    store: RunStore, block: nn.Module, place: Place, band: slice, dense: NDArray[np.float32]
) -> Arrays:
    """The layer after every kept step: where it is zero, and its values where they changed otherwise."""
    found: Arrays = {}
    for number, result in enumerate(kept_results(store)):
        weight = variant(store, result.method, result.step)(place.block, block)[place.projection]
        if weight.shape != linears(block)[place.projection].weight.shape:
            continue  # a layer that became narrower has no such weight
        values = _numpy(weight.float()[band])
        removed = values == 0
        found[f"removed.{number}"] = np.packbits(removed, axis=1)
        if not np.array_equal(values[~removed], dense[~removed]):
            found[f"value.{number}"] = values
    return found


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy()
