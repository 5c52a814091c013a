"""Pruned checkpoints that are believed only after they were read back and measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from copal_core.config import Method
from copal_core.errors import InvalidValueError, NumericalError, RunError
from copal_core.methods.criteria import CRITERIA
from copal_core.store.run_store import RunStore

FORMATS = {"hf": "Hugging Face", "compressed-tensors": "compressed-tensors"}
# relative, between the run's perplexity and the reloaded checkpoint's; 16-bit sums depend on their order
TOLERANCES = {"float32": 1e-3, "bfloat16": 1e-2, "float16": 1e-2}
LIMITS = (
    "compressed-tensors once had two formats for sparse weights, sparse-bitmask and sparse-24-bitmask. Its present "
    "releases (0.20.0 was looked at) call them legacy and neither write nor read them, and transformers asks for a "
    "present release. What is left for a pruned, unquantised checkpoint is the format dense: config.json declares "
    "the structure, and the zeros are stored. It saves no bytes; the packed masks do."
)


def why_not(form: str) -> str:
    """Why a format is not available here, in words; empty when it is. Raises InvalidValueError for an unknown one."""
    if form not in FORMATS:
        raise InvalidValueError(f"format '{form}' is not known; use {' or '.join(FORMATS)}")
    if form == "compressed-tensors" and find_spec("compressed_tensors") is None:
        return "the package compressed-tensors is not installed: pip install compressed-tensors"
    return ""


def export_and_check(
    store: RunStore,
    method: str,
    step: int,
    out: Path,
    form: str = "hf",
    report: Callable[[str, int, int], None] = lambda label, done, total: None,
    read_back: bool = True,
) -> dict[str, Any]:
    """Write the checkpoint, read it back through transformers, and measure it again.

    read_back: False leaves an hf checkpoint as it is written; compressed-tensors is always read back.

    Returns folder, format and domains: name -> {run, reloaded}, none where it was not read back. Raises NumericalError,
    and leaves nothing behind, when a perplexity differs by more than `TOLERANCES` allows; see `export_checkpoint` for
    what else is refused.
    """
    from copal_core.export.checkpoint import export_checkpoint

    reason = why_not(form)
    if reason:
        raise RunError(f"{form} cannot be written here: {reason}")
    method = str(Method.parse(method))
    if form == "compressed-tensors" and Method.parse(method).name not in CRITERIA.names():
        raise RunError(f"{method} leaves dense matrices, which have no structure to declare; use hf")
    folder = export_checkpoint(store, method, step, out)
    if form == "hf" and not read_back:
        return {"folder": str(folder), "format": form, "domains": {}}
    try:
        if form == "compressed-tensors":
            declare_structure(store, folder)
        found = check(store, method, step, folder, report)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _add_to_card(folder, found, form)
    return {"folder": str(folder), "format": form, "domains": found}


def declare_structure(store: RunStore, folder: Path) -> None:
    """Say in config.json, in the library's words, what was removed; weights stay as they are (format dense)."""
    path, structure = folder / "config.json", store.config.structure
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "dense",
        "config_groups": {},
        "ignore": [],
        "sparsity_config": {
            "format": "dense",
            "global_sparsity": structure.removed,
            "sparsity_structure": "2:4" if str(structure) == "2:4" else "unstructured",
            "targets": ["Linear"],
            "ignore": ["lm_head"],
        },
    }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check(
    store: RunStore, method: str, step: int, folder: Path, report: Callable[[str, int, int], None]
) -> dict[str, dict[str, float]]:
    """domain -> {run, reloaded}: perplexity on the run's own evaluation windows. Raises NumericalError."""
    import torch
    from transformers import AutoModelForCausalLM

    from copal_core.experiment.evaluation import model_perplexity

    report("Reading it back", 0, 0)
    dtype = store.info.get("checkpoint", {}).get("dtype", "float32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    table = store.perplexity()
    known = table[(table["method"] == method) & (table["step"] == step)].set_index("domain")["perplexity"]
    found = {}
    for index, name in enumerate(store.domains):
        windows = store.windows(index)
        if windows is None or name not in known:
            continue
        report(f"Measuring again on {name}", index, len(store.domains))
        again = model_perplexity(model, torch.from_numpy(windows["evaluation"]))
        found[name] = {"run": float(known[name]), "reloaded": again}
        if not abs(again - known[name]) <= TOLERANCES[dtype] * known[name]:
            raise NumericalError(
                f"the reloaded checkpoint has perplexity {again:.6g} on {name} and the run {known[name]:.6g}: "
                "it is not the same model, and was removed; report this"
            )
    if not found:
        raise RunError(f"run '{store.id}' has no evaluation of {method} after step {step} to compare with")
    return found


def _add_to_card(folder: Path, found: dict[str, dict[str, float]], form: str) -> None:
    """Add to the card that, and how, the files were checked."""
    path = folder / "README.md"
    lines = [
        "Read back through transformers and measured again on the same evaluation windows:",
        "",
        "| domain | run | reloaded |",
        "|---|---|---|",
        *(f"| {name} | {pair['run']:.6g} | {pair['reloaded']:.6g} |" for name, pair in found.items()),
        "",
    ]
    if form == "compressed-tensors":
        lines += [LIMITS, ""]
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines), encoding="utf-8")
