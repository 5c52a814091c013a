"""A finished run with made-up but plausible numbers, written through the run store's own interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.store.records import (
    LayerRecord,
    OverlapRecord,
    PerplexityRecord,
    Record,
    SecondsRecord,
    WarningRecord,
)
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs

METHODS = ("copal:accumulate", "wanda:restart", "sparsegpt:sequential", "magnitude:joint")
DOMAINS = ("python-code", "python-manual", "shakespeare")
SHAPES = {
    "q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64),
    "gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128),
}  # fmt: skip
HEADS = {"q_proj": 4, "o_proj": 4, "k_proj": 2, "v_proj": 2}
DENSE = (8.0, 19.0, 38.0)


def write_run(
    root: Path,
    run_id: str = "synthetic-run",
    status: str = "done",
    blocks: int = 3,
    steps: int = 3,
    title: str = "",
) -> RunStore:
    """steps: how many steps of each method are finished."""
    config = RunConfig(
        checkpoint="tiny",
        domains=DOMAINS,
        methods=METHODS,
        protocol=Protocol(calibration=Windows(count=8, length=64), evaluation=Windows(count=4, length=64)),
    )
    store = Runs(root).create(config, title=title, run_id=run_id)
    store.describe(
        checkpoint={
            "name": "tiny",
            "blocks": blocks,
            "dtype": "float32",
            "heads": 4,
            "kv_heads": 2,
            "projections": SHAPES,
        },
        domains=[
            {"spec": name, "name": name, "label": name, "content_hash": "0" * 64, "notes": []}
            for name in DOMAINS
        ],
    )
    random = np.random.default_rng(0)
    records: list[Record] = [_perplexity("dense", 0, index, DENSE[index]) for index in range(3)]
    for place, method in enumerate(METHODS):
        for step in range(1, steps + 1):
            for block in range(blocks):
                records += _block(store, method, step, block, random)
            for index in range(3):
                rise = 1.25 + 0.1 * place + 0.08 * abs(step - 1 - index) * (1 + place)
                records.append(_perplexity(method, step, index, DENSE[index] * rise))
            records.append(SecondsRecord(method, step, -1, "evaluate", 1.5))
    records.append(WarningRecord(METHODS[-1], 1, 0, "q_proj", "damping", "damping raised to 10 %"))
    store.add(records)
    store.set_state(
        RunState(
            status=status, progress=1.0 if status == "done" else 0.4, method=METHODS[0], step=steps, block=1
        )
    )
    return store


def _perplexity(method: str, step: int, domain: int, value: float) -> PerplexityRecord:
    return PerplexityRecord(method, step, DOMAINS[domain], value, float(np.log(value)), 252, 0)


def _block(store: RunStore, method: str, step: int, block: int, random: np.random.Generator) -> list[Record]:
    records: list[Record] = []
    maps = {}
    for projection, (rows, columns) in SHAPES.items():
        weights = rows * columns
        pruned, mean = weights // 2, float(10 ** (random.normal(0, 0.4) + 0.3 * block))
        stay = int(
            pruned * {"copal": 0.95, "wanda": 0.8, "sparsegpt": 1.0, "magnitude": 1.0}[method.split(":")[0]]
        )
        moved = None if step == 1 else pruned - stay
        records.append(
            LayerRecord(
                method, step, block, projection, rows, columns, weights, pruned, mean, mean * 0.9,
                mean * 0.05, mean * 0.6, mean * 4, mean * 0.4, mean * 0.6, mean * 0.8,
                None if step == 1 else stay, moved, moved,
            )
        )  # fmt: skip
        for other in METHODS:
            if other > method:
                both = int(pruned * 0.7)
                records.append(OverlapRecord(step, method, other, block, projection, both, 2 * pruned - both))
        maps.update(
            {f"{projection}.{name}": array for name, array in _tiles(projection, mean, random).items()}
        )
    store.save_arrays("maps", method, step, block, maps)
    return records


def _tiles(projection: str, mean: float, random: np.random.Generator) -> dict[str, np.ndarray]:
    rows, columns = (min(32, side) for side in SHAPES[projection])
    score = (mean * np.exp(random.normal(0, 0.5, (rows, columns)))).astype(np.float32)
    edges = np.linspace(np.log10(mean) - 3, np.log10(mean) + 1.5, 65).astype(np.float32)
    bell = (1000 * np.exp(-(((edges[:-1] - np.log10(mean * 0.6)) / 0.6) ** 2))).astype(np.int64)
    left = edges[:-1] < np.log10(mean * 0.6)
    kept = np.clip(random.normal(0.5, 0.15, (rows, columns)), 0, 1)
    tiles = {
        "log_score": np.log10(score).astype(np.float16),
        "kept": np.rint(200 * kept).astype(np.uint8),
        "histogram": np.stack([np.where(left, 0, bell), np.where(left, bell, 0)]),
        "range": np.array([edges[0], edges[-1]], np.float32),
        "row_kept": np.rint(200 * np.clip(random.normal(0.5, 0.03, rows), 0, 1)).astype(np.uint8),
    }
    if projection in HEADS:
        tiles["head_kept"] = np.full(HEADS[projection], 0.5, np.float32)
        tiles["head_score"] = (mean * np.exp(random.normal(0, 0.4, HEADS[projection]))).astype(np.float32)
    return tiles


if __name__ == "__main__":
    import sys

    write_run(Path(sys.argv[1]), blocks=int(sys.argv[2]), title="Synthetic")
