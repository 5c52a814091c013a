"""Resident memory of a run's process against its bound.

The bound is the checkpoint in the compute dtype, plus one decoder block's statistics and the windows'
activations, plus 600 MB for Python and its libraries.

    python -m benchmarks.memory --method copal:accumulate --method sparsegpt:accumulate
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

import psutil

from copal_core.checkpoints import locate
from copal_core.config import Method, Windows
from copal_core.methods.facts import facts_of

_FIXED = 600 * 2**20


def peak(arguments: list[str]) -> int:
    """Highest resident bytes of `python -m copal_core run ...`, sampled every 20 ms."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "copal_core", "run", *arguments, "--runs", runs]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)
        watched, highest = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                highest = max(highest, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.02)
        message = process.stderr.read().decode() if process.stderr else ""
        if process.returncode:
            raise SystemExit(message)
        return highest


def bound(
    checkpoint: str, method: str, domains: int, calibration: Windows, evaluation: Windows
) -> dict[str, int]:
    """Bytes by part."""
    described = locate(checkpoint).describe()
    size = {"float32": 4}.get(described.dtype, 2)
    statistics = sum(facts_of(Method.parse(method).name).gathered_bytes(described.projections).values())
    seen = domains if method.endswith(":joint") else 1
    tokens = max(calibration.tokens * seen, evaluation.tokens * domains)
    parts = {
        "checkpoint": described.memory_needed(),
        "statistics": statistics,
        "activations": tokens * described.hidden * size,
        "fixed": _FIXED,
    }
    return {**parts, "bound": sum(parts.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="smollm2-135m")
    parser.add_argument("--method", action="append")
    parser.add_argument("--domain", action="append")
    parser.add_argument("--calibration", default="16x256")
    parser.add_argument("--evaluation", default="12x256")
    options = parser.parse_args()
    methods = options.method or ["copal:accumulate", "sparsegpt:accumulate", "wanda:joint"]
    chosen = options.domain or ["python-code", "python-manual"]
    print(f"{'method':24}{'peak MB':>10}{'bound MB':>10}{'ratio':>8}")
    for method in methods:
        limits = bound(
            options.checkpoint,
            method,
            len(chosen),
            Windows.parse(options.calibration),
            Windows.parse(options.evaluation),
        )
        arguments = ["--checkpoint", options.checkpoint, "--method", method]
        arguments += [part for domain in chosen for part in ("--domain", domain)]
        arguments += ["--calibration", options.calibration, "--evaluation", options.evaluation]
        highest = peak(arguments)
        print(
            f"{method:24}{highest / 1e6:10.0f}{limits['bound'] / 1e6:10.0f}{highest / limits['bound']:8.2f}"
        )


if __name__ == "__main__":
    main()
