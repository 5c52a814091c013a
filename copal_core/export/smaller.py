"""The cost of a model without its removed neurons, or with factors, measured here with the dense one beside it."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.config import Method
from copal_core.errors import InvalidValueError, RunError
from copal_core.system import files
from copal_core.system.paths import cache_root

if TYPE_CHECKING:
    from torch import nn

    from copal_core.store.run_store import RunStore


def measure_smaller(
    store: RunStore, method: str, step: int, prompt: int = 256, written: int = 32
) -> dict[str, Any]:
    """Measure the model after `step` of `method`, and the dense one, by turns.

    A model without neurons is exported to a temporary folder and loaded by transformers, as anybody would; one with
    factors runs with them.

    Returns:
        dense and smaller (each: parameters, bytes, flops_per_token, and prefill and decode tokens a second), device,
        dtype, and two_of_four: on a GPU, for factors, what a 2:4 kernel takes for each layer beside a dense one.

    Raises:
        InvalidValueError: for a method whose model is as large as the dense one.
        RunError: when the run kept nothing of it.
    """
    from copal_core.analysis.speed import by_turns
    from copal_core.checkpoints import devices, locate
    from copal_core.methods.lowrank import LOWRANK
    from copal_core.methods.neurons import NEURONS

    parsed = Method.parse(method)
    if parsed.name not in (*NEURONS.names(), *LOWRANK.names()):
        raise InvalidValueError(
            f"method '{method}' removes no neurons and has no factors; its model is as large as the dense one"
        )
    device, dtype, _ = devices.choose("auto", "auto")
    checkpoint = locate(store.config.checkpoint)
    dense = _load(checkpoint.folder, device, dtype)
    if parsed.name in NEURONS.names():
        small, kernels = _without_neurons(store, str(parsed), step, device, dtype), []
    else:
        small = _with_factors(store, str(parsed), step, _load(checkpoint.folder, device, dtype))
        kernels = _two_of_four(checkpoint.describe(device, dtype)) if device.startswith("cuda") else []
    models = {"dense": lambda: nullcontext(dense), "smaller": lambda: nullcontext(small)}
    measured = {
        **by_turns(models, prompt, written),
        "device": device,
        "dtype": dtype,
        "two_of_four": kernels,
    }
    files.write_json(_file(store, str(parsed), step), measured, durable=False)
    return measured


def known(store: RunStore, method: str, step: int) -> dict[str, Any] | None:
    """Return what was measured last; None before. Imports no torch."""
    path = _file(store, method, step)
    return files.read_json(path) if path.is_file() else None


def _without_neurons(store: RunStore, method: str, step: int, device: str, dtype: str) -> nn.Module:
    from copal_core.export.checkpoint import export_checkpoint

    with tempfile.TemporaryDirectory(prefix="copal-smaller-") as folder:
        return _load(export_checkpoint(store, method, step, Path(folder) / "model"), device, dtype)


def _with_factors(store: RunStore, method: str, step: int, model: nn.Module) -> nn.Module:
    import torch

    from copal_core.compression.factors import stored_factors
    from copal_core.methods.factored.modules import install

    factors = stored_factors(store, method, step)
    if not factors:
        raise RunError(f"run '{store.id}' holds no factors of {method} at step {step}; finish the run first")
    return install(model, {name: torch.from_numpy(array) for name, array in factors.items()})


def _two_of_four(description: Any) -> list[dict[str, Any]]:
    """2:4 products of the checkpoint's layer shapes beside dense ones, for one token and for a prompt."""
    import torch

    from copal_core.analysis import semi_structured

    dtype = torch.float16 if description.dtype == "float32" else getattr(torch, description.dtype)
    found = []
    for tokens in (1, 256):
        for one in semi_structured.compare(description.projections, tokens, description.device, dtype):
            found.append({**one.__dict__, "ratio": one.ratio})
    return found


def _load(folder: Path, device: str, dtype: str) -> nn.Module:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(device).eval()


def _file(store: RunStore, method: str, step: int) -> Path:
    return cache_root() / "speed" / f"{store.id}-{Method.parse(method).slug}-{step}.json"
