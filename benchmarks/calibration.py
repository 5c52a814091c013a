"""What calibrating and pruning costs, as a ratio to one bare forward pass of the decoder blocks.

Same windows, same machine, interleaved; each ratio is the median over the rounds.
Embedding is left out on both sides; reading and writing the run's files too.

    python -m benchmarks.calibration --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict

import torch

from copal_core import domains
from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone, swapped
from copal_core.compression.pruning import prune_block
from copal_core.compression.restore import dense_weights
from copal_core.config import Structure, Windows
from copal_core.methods.criterion import build_criterion
from copal_core.statistics.blockwise import HiddenStates

CASES = (
    ("wanda", "pruned"),
    ("copal", "pruned"),
    ("copal", "dense"),
    ("sparsegpt", "pruned"),
)


def forward(backbone: Backbone, windows: torch.Tensor) -> dict[str, float]:
    """Seconds of the bare forward pass."""
    states = HiddenStates(backbone, [windows])
    started = time.perf_counter()
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            states.advance(block)
    return {"total": time.perf_counter() - started}


def calibrate(
    backbone: Backbone, windows: torch.Tensor, name: str, propagate: str, structure: Structure
) -> dict[str, float]:
    """Seconds by phase of pruning every block for one domain."""
    criterion = build_criterion(name, {})
    states = HiddenStates(backbone, [windows])
    seconds: dict[str, float] = defaultdict(float)
    start = time.perf_counter()
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            base = dense_weights(block)
            begun = time.perf_counter()
            found = states.calibrate(block, criterion.statistics(), advance=propagate == "dense")
            seconds["calibrate"] += time.perf_counter() - begun
            begun = time.perf_counter()
            pruned = prune_block(criterion, base, found[0], structure)
            seconds["select"] += time.perf_counter() - begun
            if propagate == "pruned":
                begun = time.perf_counter()
                with swapped(block, pruned.weights):
                    states.advance(block)
                seconds["propagate"] += time.perf_counter() - begun
    seconds["total"] = time.perf_counter() - start
    return dict(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="smollm2-135m")
    parser.add_argument("--domain", default="python-code")
    parser.add_argument("--calibration", default="16x256")
    parser.add_argument("--structure", default="unstructured")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkpoint = locate(options.checkpoint)
    backbone = checkpoint.open()
    asked = Windows.parse(options.calibration)
    sample = domains.draw(
        domains.find(options.domain), checkpoint.tokenizer(), asked, Windows(count=1, length=asked.length), 0
    )
    windows = torch.from_numpy(sample.calibration)
    structure = Structure.parse(options.structure)
    forward(backbone, windows)  # reads the weights
    ratios: dict[tuple[str, str], dict[str, list[float]]] = {case: defaultdict(list) for case in CASES}
    bare = [forward(backbone, windows)["total"]]
    for turn in range(options.rounds):
        for case in CASES:
            parts = calibrate(backbone, windows, *case, structure)
            bare.append(forward(backbone, windows)["total"])
            reference = (bare[-2] + bare[-1]) / 2  # just before and just after
            for phase, seconds in parts.items():
                ratios[case][phase].append(seconds / reference)
            print(f"round {turn + 1}: {case} {parts['total'] / reference:.2f}", file=sys.stderr, flush=True)
    print(
        f"{options.checkpoint}, {asked} windows of {options.domain}, {structure}, {torch.get_num_threads()} threads"
    )
    print(f"one bare forward pass: {statistics.median(bare):.2f} s (median of {len(bare)})\n")
    print(f"{'criterion':12}{'propagation':12}{'calibrate':>10}{'select':>10}{'propagate':>10}{'total':>10}")
    for (name, propagate), found in ratios.items():
        cells = [
            statistics.median(found[phase]) if phase in found else 0.0
            for phase in ("calibrate", "select", "propagate", "total")
        ]
        print(f"{name:12}{propagate:12}" + "".join(f"{cell:10.2f}" for cell in cells))


if __name__ == "__main__":
    main()
