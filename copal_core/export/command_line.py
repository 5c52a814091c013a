"""A configuration as the command that computes it."""

from __future__ import annotations

import shlex

from copal_core.config import RunConfig


def command_of(config: RunConfig) -> str:
    """The command line of the same run, one option a line."""
    parts = ["python -m copal_core run", f"--checkpoint {shlex.quote(config.checkpoint)}"]
    parts += [f"--domain {shlex.quote(spec)}" for spec in config.domains]
    parts += [f"--method {shlex.quote(str(method))}" for method in config.methods]
    structure, protocol = config.structure, config.protocol
    if structure.kind == "n:m":
        parts.append(f"--structure {structure}")
    else:
        parts.append(f"--sparsity {structure.sparsity!r} --group {structure.group}")
    parts.append(f"--calibration {protocol.calibration} --evaluation {protocol.evaluation}")
    parts.append(f"--propagate {protocol.propagate} --seed {protocol.seed} --dtype {protocol.dtype}")
    if config.steps != "all":
        parts.append(f"--steps {config.steps}")
    if protocol.device != "auto":
        parts.append(f"--device {protocol.device}")
    if protocol.map_size != 64:
        parts.append(f"--map-size {protocol.map_size}")
    return " \\\n  ".join(parts)
