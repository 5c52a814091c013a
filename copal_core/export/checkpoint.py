"""A method's result as a checkpoint folder that transformers loads as it is."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from copal_core.analysis.results import done_by, result_of
from copal_core.checkpoints import Checkpoint, devices, locate
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.compression.restore import artifact_of, variant
from copal_core.config import Method
from copal_core.errors import RunError
from copal_core.methods.facts import facts_of
from copal_core.store.run_store import RunStore
from copal_core.system import files


def export_checkpoint(store: RunStore, method: str, step: int, out: Path) -> Path:
    """Write the model after `step` of `method` into the new folder `out`.

    Zeros stand for removed weights; removed neurons are taken out, so that the checkpoint is smaller.

    Raises InvalidValueError for an unknown method or step, RunError when `out` is not empty, when the run
    kept no masks, or when the checkpoint has changed since the run.
    """
    method = str(Method.parse(method))
    _check(store, method, step)
    out = files.new_folder(out)  # refused before anything is read
    checkpoint = _checkpoint_of(store)
    device, dtype, _ = devices.choose("cpu", store.info["checkpoint"].get("dtype", "auto"))
    backbone = Backbone(checkpoint.folder, device, dtype)
    with files.making(out) as temporary:
        artifact_of(method).export(store, method, step, backbone, temporary)
        checkpoint.tokenizer().save_pretrained(temporary)
        (temporary / "README.md").write_text(_card(store, method, step), encoding="utf-8")
    return out


def pruned_model(store: RunStore, method: str, step: int) -> nn.Module:
    """Load the model after `step` of `method` into memory, as the run evaluated it: zeros stand for what was removed.

    Returns:
        A model of transformers on the CPU, in the run's number format and in evaluation mode.

    Raises:
        InvalidValueError: the method or the step is not in the run.
        RunError: the run kept nothing of it, or the checkpoint has changed since.
    """
    from transformers import AutoModelForCausalLM

    _check(store, method, step)
    dtype = getattr(torch, store.info["checkpoint"]["dtype"])
    model = AutoModelForCausalLM.from_pretrained(_checkpoint_of(store).folder, dtype=dtype).eval()
    weights_of = variant(store, method, step)
    for index, block in enumerate(model.model.layers):
        layers = linears(block)
        for name, weight in weights_of(index, block).items():
            layers[name].weight.data = weight.to(dtype)
    return model


def _checkpoint_of(store: RunStore) -> Checkpoint:
    """Return the run's checkpoint. Raises RunError when its weights have changed since."""
    checkpoint = locate(store.config.checkpoint)
    if store.info.get("checkpoint", {}).get("fingerprint") not in (None, checkpoint.fingerprint()):
        raise RunError(
            f"checkpoint '{store.config.checkpoint}' is not the one the run used; its weights have changed"
        )
    return checkpoint


def _check(store: RunStore, method: str, step: int) -> None:
    store.choose_method(method)
    store.choose_step(step)
    last = store.info.get("checkpoint", {}).get("blocks", 1) - 1
    if store.recorded:
        raise RunError("a recorded run keeps no masks; start a run of your own to export from it")
    kind = facts_of(Method.parse(method).name).artifact
    if not store.has_arrays(kind, method, step, last):
        raise RunError(f"run '{store.id}' holds no {kind} of {method} at step {step}; finish the run first")


def _card(store: RunStore, method: str, step: int) -> str:
    result = result_of(store)
    found = next(entry for entry in result["methods"] if entry["method"] == method)
    after = dict(zip(store.domains, found["perplexity"][step - 1], strict=True))
    lines = [
        f"# {store.config.checkpoint}, compressed by {method}",
        "",
        f"{done_by(store, method, step)}; after step {step} of the domains {', '.join(store.domains)}.",
        artifact_of(method).on_disk,
        f"Protocol: {store.protocol_stamp()}.",
        "",
        "| domain | dense perplexity | perplexity |",
        "|---|---|---|",
    ]
    for name, value in after.items():
        dense = result["dense"][name]
        lines.append(f"| {name} | {_number(dense)} | {_number(value)} |")
    lines += [
        "",
        "Configuration of the run:",
        "",
        "```json",
        json.dumps(json.loads(store.config.canonical()), indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
