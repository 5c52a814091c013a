"""Calibration, memory and 2:4 kernels on a GPU, from a bare checkout: torch, transformers and safetensors suffice.

A random model of a large model's shape is written to a temporary folder and read from there as any checkpoint.
Prints what calibrating and pruning cost as ratios to one bare forward pass of the decoder blocks, the peak of the
GPU's memory, the rate that is reached beside the rate of a large matrix product on the same card, what visiting
blocks one at a time costs, and 2:4 products beside dense ones.

    python -m benchmarks.gpu                                  the 7B shape, 128 windows of 2048 tokens
    python -m benchmarks.gpu --blocks 4                       four of its blocks: the same ratios, sooner
    python -m benchmarks.gpu --device cpu --shape small       the same code on a processor
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.big_model import SHAPES, write
from copal_core.analysis import semi_structured
from copal_core.checkpoints.backbone import Backbone, linears, swapped
from copal_core.compression.pruning import prune_block
from copal_core.methods.criterion import build_criterion
from copal_core.statistics.blockwise import HiddenStates
from copal_core.system.torch_settings import exact_products

CRITERIA = ("wanda", "copal", "sparsegpt")
FASTEST_MATRIX = 8192  # rows and columns of the product that tells what the card can do


@dataclass(frozen=True)
class Half:
    """Half of each row goes: what `copal_core.config.Structure` says by default, without pydantic."""

    kind: str = "unstructured"
    group: str = "row"
    sparsity: float = 0.5
    keep: int = 2
    group_size: int = 4

    def check_divides(self, columns: int) -> None:
        """Rows have no groups that could fail to divide."""


class Clock:
    """Seconds of what a device has finished, not of what it was asked for."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device

    def now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def forward(backbone: Backbone, windows: torch.Tensor, clock: Clock) -> float:
    """Seconds of one bare pass of the blocks."""
    states = HiddenStates(backbone, [windows])
    started = clock.now()
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            states.advance(block)
    return clock.now() - started


def calibrate(backbone: Backbone, windows: torch.Tensor, name: str, clock: Clock) -> dict[str, float]:
    """Seconds by phase of pruning every block for one domain, each calibrated on the pruned ones before it."""
    criterion = build_criterion(name, {})
    states = HiddenStates(backbone, [windows])
    seconds: dict[str, float] = defaultdict(float)
    began = clock.now()
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            base = {name: layer.weight.data for name, layer in linears(block).items()}
            started = clock.now()
            found = states.calibrate(block, criterion.statistics(), advance=False)
            seconds["calibrate"] += clock.now() - started
            started = clock.now()
            pruned = prune_block(criterion, base, found[0], Half())  # type: ignore[arg-type]
            seconds["select"] += clock.now() - started
            started = clock.now()
            with swapped(block, pruned.weights):
                states.advance(block)
            seconds["propagate"] += clock.now() - started
            del found, pruned
    return {**seconds, "total": clock.now() - began}


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of one square matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with exact_products():
        return 2 * size**3 / semi_structured.seconds_of(lambda: a @ b, str(device))


def operations(backbone: Backbone, tokens: int, name: str) -> float:
    """Of the linear layers alone: a pass that calibrates, its statistics, and a pass that propagates."""
    with backbone.block(0) as block:
        layers = linears(block)
        weights = sum(layer.weight.numel() for layer in layers.values())
        grams = sum(
            layers[key].weight.shape[1] ** 2 for key in ("q_proj", "o_proj", "gate_proj", "down_proj")
        )
    extra = {"copal": weights, "sparsegpt": grams}.get(name, 0)
    return 2.0 * tokens * backbone.depth * (2 * weights + extra)


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use; try --device cpu --shape small")
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "a processor"
    print(f"{named}, torch {torch.__version__}, {dtype} weights, float32 statistics", flush=True)
    count, length = (int(part) for part in options.windows.split("x"))
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        write(options.shape, Path(folder) / "model", options.blocks)
        _measure(Path(folder) / "model", device, dtype, count, length, options)
    _kernels(options, device, getattr(torch, dtype), count * length)


def _measure(
    folder: Path, device: torch.device, dtype: str, count: int, length: int, options: argparse.Namespace
) -> None:
    clock = Clock(device)
    backbone = Backbone(folder, str(device), dtype, keep_blocks=True)
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(backbone.config.vocab_size, (count, length), generator=generator)
    print(f"{options.shape}: {backbone.depth} blocks, {count} windows of {length} tokens")
    forward(backbone, windows, clock)  # reads the weights, and warms up
    bare = [forward(backbone, windows, clock) for _ in range(options.rounds)]
    reference = statistics.median(bare)
    fastest = matrix_rate(device, getattr(torch, dtype), options.matrix)
    exact = matrix_rate(device, torch.float32, options.matrix // 2)
    print(f"one bare forward pass: {reference:.3f} s (of {', '.join(f'{one:.3f}' for one in bare)})")
    print(
        f"matrix product: {fastest / 1e12:.1f} TFLOP/s {dtype}, {exact / 1e12:.1f} TFLOP/s float32, no TF32\n"
    )
    print(
        f"{'criterion':12}{'calibrate':>10}{'select':>10}{'propagate':>10}{'total':>10}{'peak GB':>10}{'of rate':>9}"
    )
    for name in CRITERIA:
        taken, peak = _median(
            lambda name=name: calibrate(backbone, windows, name, clock), device, options.rounds
        )  # type: ignore[misc]
        cells = [taken.get(phase, 0.0) / reference for phase in ("calibrate", "select", "propagate", "total")]
        share = operations(backbone, count * length, name) / taken["total"] / fastest
        print(
            f"{name:12}" + "".join(f"{cell:10.2f}" for cell in cells) + f"{peak / 1e9:10.2f}{share:9.1%}",
            flush=True,
        )
    visiting = Backbone(folder, str(device), dtype, keep_blocks=False)
    forward(visiting, windows, clock)
    streamed = statistics.median(forward(visiting, windows, clock) for _ in range(options.rounds))
    print(
        f"\na bare pass with blocks that visit one at a time: {streamed / reference:.2f} of one that keeps them"
    )


def _median(
    measure: Callable[[], dict[str, float]], device: torch.device, rounds: int
) -> tuple[dict[str, float], int]:
    """The round with the median total, and the GPU's peak of allocated bytes (0 on a processor)."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    found = sorted((measure() for _ in range(rounds)), key=lambda one: one["total"])
    return found[len(found) // 2], torch.cuda.max_memory_allocated(device) if cuda else 0


def _kernels(options: argparse.Namespace, device: torch.device, dtype: torch.dtype, tokens: int) -> None:
    sizes = SHAPES[options.shape]
    hidden, ffn = sizes["hidden_size"], sizes["intermediate_size"]
    shapes = {"q_proj": (hidden, hidden), "up_proj": (ffn, hidden), "down_proj": (hidden, ffn)}
    print(
        f"\n{'2:4 product':12}{'shape':>14}{'tokens':>8}{'dense ms':>10}{'2:4 ms':>10}{'dense/2:4':>11}{'error':>9}"
    )
    for many in sorted({1, 16, min(tokens, 2048)}):
        for one in semi_structured.compare(shapes, many, str(device), dtype):
            cells = f"{one.name:12}{f'{one.rows}x{one.columns}':>14}{many:8}{1000 * one.dense:10.3f}"
            if one.sparse is None or one.ratio is None or one.error is None:
                print(f"{cells}         - ({one.why_not})")
            else:
                print(f"{cells}{1000 * one.sparse:10.3f}{one.ratio:11.2f}{one.error:9.4f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=SHAPES, help="default: 7b on a GPU, small on a processor")
    parser.add_argument("--blocks", type=int, default=0, help="0: as many as the shape has")
    parser.add_argument("--windows", help="default: 128x2048 on a GPU, 2x64 on a processor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--matrix", type=int, help="rows of the product that tells the card's rate")
    parser.add_argument("--scratch", type=Path, help="where the model is written; it is removed afterwards")
    options = parser.parse_args()
    on_gpu = options.device.startswith("cuda")
    options.shape = options.shape or ("7b" if on_gpu else "small")
    options.windows = options.windows or ("128x2048" if on_gpu else "2x64")
    options.matrix = options.matrix or (FASTEST_MATRIX if on_gpu else 512)
    return options


if __name__ == "__main__":
    main()
