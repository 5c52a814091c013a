"""A decomposed checkpoint on disk: factors with a loader of three lines, and a merged checkpoint for transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from copal_core.checkpoints import Checkpoint
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import place_of
from copal_core.checkpoints.writer import write_checkpoint
from copal_core.errors import RunError
from copal_core.methods.decomposition import Factors
from copal_core.methods.factored.files import load_factors, save_factors
from copal_core.methods.factored.workshop import Member
from copal_core.store.decompositions import DecompositionStore
from copal_core.system import files

LOADER = """from safetensors.torch import load_file
from copal_core.methods.factored.modules import install
install(model, load_file("factors.safetensors"))"""


def export_member(
    checkpoint: Checkpoint, member: Member, out: Path, table: Mapping[str, float | None] | None = None
) -> Path:
    """Write `member` into the new folder `out`: factors.safetensors, merged/ (a stock checkpoint) and README.md.

    table: domain -> perplexity, None where it is not finite, for the README.
    Raises RunError when `out` holds files already, or cannot be written.
    """
    out = files.new_folder(out)
    backbone = Backbone(checkpoint.folder, "cpu", "float32")
    small = _small(checkpoint, member.factors)
    about = {"checkpoint": checkpoint.name, "member": member.name}
    with files.making(out) as temporary:
        save_factors(temporary / "factors.safetensors", small, about)
        (temporary / "merged").mkdir()
        write_checkpoint(backbone, temporary / "merged", member.weights, lossless=False)
        checkpoint.tokenizer().save_pretrained(temporary / "merged")
        (temporary / "README.md").write_text(_card(checkpoint, member, small, table or {}), encoding="utf-8")
    return out


def _small(checkpoint: Checkpoint, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """Those that are smaller than the layer they replace; the others are in the merged checkpoint."""
    shapes = checkpoint.describe().projections
    full = {name: rows * columns for name, (rows, columns) in shapes.items()}
    return {n: f for n, f in factors.items() if f.parameters < full[place_of(n)[1]]}


def _kept(checkpoint: Checkpoint, small: Mapping[str, Factors]) -> str:
    """Such as '59.3 % of the bytes of the linear layers: 13 of 14 as factors of rank 5 to 11'."""
    described = checkpoint.describe()
    full = {name: rows * columns for name, (rows, columns) in described.projections.items()}
    dense = described.blocks * sum(full.values())
    saved = sum(full[place_of(name)[1]] - one.parameters for name, one in small.items())
    words = f"{100 * (1 - saved / dense):.3g} % of the bytes of the linear layers"
    if not small:
        return words
    ranks = [one.rank for one in small.values()]
    return f"{words}: {len(small)} of {described.blocks * len(full)} as factors of rank {min(ranks)} to {max(ranks)}"


def _card(
    checkpoint: Checkpoint, member: Member, small: Mapping[str, Factors], table: Mapping[str, float | None]
) -> str:
    lines = [
        f"# {checkpoint.name}, {member.name}",
        "",
        f"Kept {_kept(checkpoint, small)}; {member.label}.",
        "",
        "| domain | perplexity |",
        "|---|---|",
        *(f"| {name} | {'-' if value is None else format(value, '.2f')} |" for name, value in table.items()),
        "",
        "`merged/` loads with transformers as it is, at the dense size. To run with the factors, load the checkpoint",
        "they are of (or `merged/`) as `model`, then:",
        "",
        "```python",
        LOADER,
        "```",
        "",
    ]
    return "\n".join(lines)


def load_member(store: DecompositionStore, name: str = "") -> tuple[dict[str, Any], Member]:
    """A finished member of a decomposition with its entry in the result; the last that has factors by default.

    Raises RunError when there is none of that name, or it is a mask and keeps no factors.
    """
    members = [m for m in store.result()["members"] if not name or m["name"] == name]
    for entry in reversed(members):
        path = store.member_folder(entry["name"]) / "factors.safetensors"
        if path.exists():
            factors = load_factors(path)
            return entry, Member(entry["name"], entry["share"], factors, entry["tokens"], entry["label"])
    raise RunError(
        f"decomposition '{store.id}' holds no factors{f' of {name}' if name else ''}; decompose first"
    )
