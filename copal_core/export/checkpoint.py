"""A method's result as a checkpoint folder that transformers loads as it is."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from copal_core.analysis.results import result_of
from copal_core.checkpoints import devices, locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.writer import write_checkpoint
from copal_core.compression.restore import stored_factors, variant
from copal_core.config import Method
from copal_core.errors import InvalidValueError, RunError
from copal_core.methods.neuron_removal import width_after, without_neurons
from copal_core.methods.wording import done_by
from copal_core.store.run_store import RunStore
from copal_core.system import files

LOADER = """from safetensors.torch import load_file
from copal_core.methods.factored.modules import install
install(model, load_file("factors/factors.safetensors"))"""


def export_checkpoint(store: RunStore, method: str, step: int, out: Path) -> Path:
    """Write the model after `step` of `method` into the new folder `out`.

    Zeros stand for removed weights; removed neurons are taken out, so that the checkpoint is smaller.

    Raises InvalidValueError for an unknown method or step, RunError when `out` is not empty, when the run
    kept no masks, or when the checkpoint has changed since the run.
    """
    method = str(Method.parse(method))
    _check(store, method, step)
    out = files.new_folder(out)  # refused before anything is read
    checkpoint = locate(store.config.checkpoint)
    used = store.info.get("checkpoint", {})
    if used.get("fingerprint") not in (None, checkpoint.fingerprint()):
        raise RunError(
            f"checkpoint '{store.config.checkpoint}' is not the one the run used; its weights have changed"
        )
    device, dtype, _ = devices.choose("cpu", used.get("dtype", "auto"))
    backbone = Backbone(checkpoint.folder, device, dtype)
    with files.making(out) as temporary:
        _write_weights(store, method, step, backbone, temporary)
        checkpoint.tokenizer().save_pretrained(temporary)
        if factors := stored_factors(store, method, step):
            files.write_arrays(temporary / "factors" / "factors.safetensors", factors)
        (temporary / "README.md").write_text(_card(store, method, step), encoding="utf-8")
    return out


def _check(store: RunStore, method: str, step: int) -> None:
    methods = [str(m) for m in store.config.methods]
    if method not in methods:
        raise InvalidValueError(f"method '{method}' is not in run '{store.id}'; it has {', '.join(methods)}")
    if not 1 <= step <= len(store.config.domains):
        raise InvalidValueError(f"step {step} is not in the run; choose 1 to {len(store.config.domains)}")
    last = store.info.get("checkpoint", {}).get("blocks", 1) - 1
    if store.recorded:
        raise RunError("a recorded run keeps no masks; start a run of your own to export from it")
    if not any(store.has_arrays(kind, method, step, last) for kind in ("masks", "factors", "neurons")):
        raise RunError(
            f"run '{store.id}' holds no masks, factors or neurons of {method} at step {step}; finish the run first"
        )


def _write_weights(store: RunStore, method: str, step: int, backbone: Backbone, folder: Path) -> None:
    # masks leave the stored numbers as they are or remove them; other methods compute new ones
    computed = any(store.has_arrays(kind, method, step, 0) for kind in ("weights", "factors", "neurons"))
    weights_of = variant(store, method, step)
    kept = kept_neurons(store, method, step)
    if not kept:
        write_checkpoint(backbone, folder, weights_of, lossless=not computed)
        return
    width = width_after(kept)

    def taken_out(index: int, block: nn.Module) -> dict[str, Tensor]:
        return without_neurons(block, weights_of(index, block), kept[index], width)

    write_checkpoint(backbone, folder, taken_out, lossless=False, intermediate_size=width)


def kept_neurons(store: RunStore, method: str, step: int) -> list[Tensor]:
    """(d_ff,) bool for each block after `step` of a neuron method; empty for another method."""
    blocks = range(store.info["checkpoint"]["blocks"])
    if not store.has_arrays("neurons", method, step, len(blocks) - 1):
        return []
    return [torch.from_numpy(store.arrays("neurons", method, step, block)["kept"]) for block in blocks]


def _card(store: RunStore, method: str, step: int) -> str:
    result = result_of(store)
    found = next(entry for entry in result["methods"] if entry["method"] == method)
    after = dict(zip(store.domains, found["perplexity"][step - 1], strict=True))
    lines = [
        f"# {store.config.checkpoint}, compressed by {method}",
        "",
        f"{done_by(store, method, step)}; after step {step} of the domains {', '.join(store.domains)}.",
        _on_disk(store, method, step),
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


def _on_disk(store: RunStore, method: str, step: int) -> str:
    if store.has_arrays("neurons", method, step, 0):
        return (
            "The removed neurons are taken out: the feed-forward layers are smaller, and as dense as before."
        )
    if store.has_arrays("factors", method, step, 0):
        return (
            "Factors are multiplied out and removed weights are zeros, in dense matrices: the files are as large as "
            "before, and no faster to run. The factors are in `factors/`, where there are any. To run with them, load "
            f"this checkpoint as `model`, then:\n\n```python\n{LOADER}\n```\n"
        )
    return (
        "Removed weights are zeros in dense matrices: the files are as large as before, and no faster to run."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
