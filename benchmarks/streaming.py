"""What visiting blocks one at a time costs against keeping them all, and whether the bytes are the same.

Whole runs, one kept and one streamed in turn, the first pair not counted; the ratio is of the medians of
processor-shared wall-clock seconds.

    python -m benchmarks.streaming --checkpoint smollm2-135m --rounds 2
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from copal_core.checkpoints import residence
from copal_core.config import Method, Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.store.runs import Runs

KINDS = {"kept": None, "streamed": "1"}  # the limit to plan with: nothing stays under one byte


def one(config: RunConfig, limit: str | None) -> tuple[float, str]:
    """Seconds of a run, and a hash over everything it wrote that does not tell the time."""
    os.environ.pop(residence.LIMIT, None)
    if limit is not None:
        os.environ[residence.LIMIT] = limit
    with tempfile.TemporaryDirectory() as folder:
        store = Runs(Path(folder)).create(config)
        started = time.perf_counter()
        loop.run(store)
        seconds = time.perf_counter() - started
        digest = hashlib.sha256()
        for path in sorted(store.folder.rglob("*.safetensors")):
            digest.update(str(path.relative_to(store.folder)).encode() + path.read_bytes())
        digest.update(store.perplexity().to_csv().encode() + store.layers().to_csv().encode())
    return seconds, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="smollm2-135m")
    parser.add_argument("--domain", action="append")
    parser.add_argument("--method", default="copal:accumulate")
    parser.add_argument("--calibration", default="4x256")
    parser.add_argument("--evaluation", default="2x256")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    config = RunConfig(
        checkpoint=options.checkpoint,
        domains=tuple(options.domain or ["python-code"]),
        methods=(Method.parse(options.method),),
        protocol=Protocol(
            calibration=Windows.parse(options.calibration), evaluation=Windows.parse(options.evaluation)
        ),
    )
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    hashes: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for turn in range(options.rounds + 1):
        for kind, limit in KINDS.items():
            taken, found = one(config, limit)
            hashes[kind].add(found)
            if turn:
                seconds[kind].append(taken)
            print(f"round {turn}: {kind} {taken:.1f} s", file=sys.stderr, flush=True)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    print(f"{options.checkpoint}, {options.method}, calibration {options.calibration}")
    print(f"kept      {medians['kept']:8.1f} s")
    print(f"streamed  {medians['streamed']:8.1f} s")
    print(f"ratio     {medians['streamed'] / medians['kept']:8.2f}")
    same = len(hashes["kept"] | hashes["streamed"]) == 1
    print("bytes     " + ("identical" if same else "DIFFERENT"))


if __name__ == "__main__":
    main()
