"""Time and memory of all curves of one layer: SmolLM2's shapes with three domains, and 4096 × 11008 with one.

Random weights and random Gram matrices of full rank. Wall-clock seconds depend on what else the machine does;
processor seconds over the number of threads are what it takes alone.
"""

from __future__ import annotations

import resource
import sys
import time

import torch

from copal_core.analysis.layers.curves import layer_curves
from copal_core.statistics.accumulators import GroupStatistics

SHAPES = {
    "q_proj": (576, 576, 3),
    "gate_proj": (1536, 576, 3),
    "down_proj": (576, 1536, 3),
    "7B": (4096, 11008, 1),
}
LIMITS = {"q_proj": 2.0, "gate_proj": 2.0, "down_proj": 2.0, "7B": 60.0}


def statistics(rows: int, columns: int, seed: int) -> GroupStatistics:
    """A Gram matrix of full rank with uneven diagonal, and a coupling to go with it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = columns + columns // 8
    gram = torch.zeros(columns, columns)
    scale = torch.logspace(-1, 1, columns)
    for start in range(0, tokens, 1024):
        inputs = torch.randn(min(1024, tokens - start), columns, generator=generator) * scale
        gram.addmm_(inputs.T, inputs)
    coupling = torch.rand(rows, columns, generator=generator)
    totals = {"input_gram": gram, "input_square_sum": gram.diagonal().clone(), "absolute_coupling": coupling}
    return GroupStatistics(tokens, totals)


def main() -> int:
    chosen = sys.argv[1:] or list(SHAPES)
    threads = torch.get_num_threads()
    columns = ("domains", 8), ("seconds", 8), ("processor/threads", 18), ("limit", 6), ("rows measured", 14)
    titles = "".join(f" {title:>{width}}" for title, width in (*columns, ("slider ms", 10), ("peak GB", 8)))
    print(f"{threads} threads\n{'layer':10} {'shape':>12}{titles}")
    for name in chosen:
        rows, columns, domains = SHAPES[name]
        weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(9))
        given = {f"domain-{seed}": statistics(rows, columns, seed) for seed in range(domains)}
        if rows < 4096:
            layer_curves(weight, given)  # the first call pays for loading the libraries
        began, spent = time.perf_counter(), time.process_time()
        curves = layer_curves(weight, given)
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        began = time.perf_counter()
        curves.readings(0.56)
        slider = 1000 * (time.perf_counter() - began)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        figures = f"{seconds:>8.2f} {spent / threads:>18.2f} {LIMITS[name]:>6.0f} {curves.rows:>14}"
        print(
            f"{name:10} {rows:>6}×{columns:<5} {domains:>8} {figures} {slider:>10.2f} {peak:>8.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
