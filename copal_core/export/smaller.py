"""What a model without its removed neurons costs, measured on this machine with the dense one beside it."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.config import Method
from copal_core.errors import InvalidValueError
from copal_core.system import files
from copal_core.system.paths import cache_root

if TYPE_CHECKING:
    from copal_core.store.run_store import RunStore

Measured = dict[str, dict[str, float]]


def measure_smaller(
    store: RunStore, method: str, step: int, prompt: int = 256, written: int = 32
) -> Measured:
    """'dense' and 'smaller': parameters, bytes, flops_per_token, and prefill and decode tokens a second.

    The smaller model is exported to a temporary folder and loaded by transformers, as anybody would. Raises
    InvalidValueError for a method that removes no neurons, RunError when the run kept nothing of it.
    """
    from copal_core.analysis.speed import by_turns
    from copal_core.checkpoints import locate
    from copal_core.export.checkpoint import export_checkpoint
    from copal_core.methods.neurons import NEURONS

    parsed = Method.parse(method)
    if parsed.name not in NEURONS.names():
        raise InvalidValueError(
            f"method '{method}' removes no neurons; its model is as large as the dense one"
        )
    with tempfile.TemporaryDirectory(prefix="copal-smaller-") as folder:
        out = export_checkpoint(store, str(parsed), step, Path(folder) / "model")
        dense, small = _load(locate(store.config.checkpoint).folder), _load(out)
        models = {"dense": lambda: nullcontext(dense), "smaller": lambda: nullcontext(small)}
        measured = by_turns(models, prompt, written)
    files.write_json(_file(store, str(parsed), step), measured, durable=False)
    return measured


def known(store: RunStore, method: str, step: int) -> Measured | None:
    """What was measured last; None before. No torch."""
    path = _file(store, method, step)
    return files.read_json(path) if path.is_file() else None


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _file(store: RunStore, method: str, step: int) -> Path:
    return cache_root() / "speed" / f"{store.id}-{Method.parse(method).slug}-{step}.json"
