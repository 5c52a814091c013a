"""Throughput of a 16-run sweep on `tiny`: two workers of one thread against one.

Each round computes the same grid once with either, on a Ray started for it; starting Ray is not counted.

    python -m benchmarks.sweep --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from copal_core.config import Method, Protocol, Windows
from copal_core.experiment import cluster, groups
from copal_core.store.groups import Groups
from copal_core.store.variations import Grid, structures

_LEAST = 1.7


def grid() -> Grid:
    """16 runs of about two seconds each."""
    return Grid(
        checkpoints=["tiny"],
        domains=["python-code", "shakespeare"],
        methods=[Method.parse(text) for text in ("copal:accumulate", "wanda:restart")],
        structures=structures(["unstructured"], [0.3, 0.4, 0.5, 0.6]),
        seeds=[0, 1],
        protocol=Protocol(calibration=Windows.parse("16x256"), evaluation=Windows.parse("16x256")),
    )


def seconds(workers: int) -> float:
    """Of the whole sweep, from the first run handed out to the last one taken."""
    with tempfile.TemporaryDirectory() as runs:
        where = cluster.Cluster(workers=workers, threads=1)
        with cluster.connected(where):
            warm = Groups(Path(runs)).create(grid().configs()[:workers])
            groups.compute(warm, where)  # the workers import torch
            group = Groups(Path(runs)).create(grid().configs())
            started = time.perf_counter()
            groups.compute(group, where)
            return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, values in found.items():
            values.append(seconds(workers))
    one, two = (statistics.median(values) for values in found.values())
    print("16 runs on tiny, median of", rounds)
    print(f"1 worker of one thread   {one:7.1f} s")
    print(f"2 workers of one thread  {two:7.1f} s")
    print(f"throughput               {one / two:7.2f} × (at least {_LEAST})")
    return 0 if one / two >= _LEAST else 1


if __name__ == "__main__":
    raise SystemExit(main())
