"""`run --plan`: minutes, memory and disk, what stays in memory and what visits it, before anything starts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from copal_core.checkpoints import locate
from copal_core.config import RunConfig
from copal_core.experiment import preflight
from copal_core.experiment.memory_plan import gigabytes


def print_plan(config: RunConfig, as_json: bool) -> None:
    """Print the estimate of `config`; a checkpoint that is not here yet is fetched or converted first."""
    protocol = config.protocol
    checkpoint = locate(config.checkpoint, lambda label, done, total: print(label, file=sys.stderr))
    described = checkpoint.describe(protocol.device, protocol.dtype)
    found = preflight.estimate(config, described)
    if as_json:
        smaller = found.smaller.protocol.model_dump(mode="json") if found.smaller else None
        shown = {**asdict(found), "smaller": smaller, "fits": found.fits, "lines": found.plan.lines()}
        shown |= {
            "device": described.device,
            "dtype": described.dtype,
            "dtype_reason": described.dtype_reason,
        }
        print(json.dumps(shown))
        return
    print(f"time     about {max(1, round(found.minutes))} min")
    print(f"memory   {gigabytes(found.memory_bytes)} of {gigabytes(found.memory_free)} that are free")
    print(f"disk     {gigabytes(found.disk_bytes)} of {gigabytes(found.disk_free)} that are free")
    for line in (*found.plan.lines(), *found.problems):
        print(line)
