"""The masks of one result, packed to bits, with a loader of a few lines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from copal_core.analysis.results import done_by
from copal_core.config import Method
from copal_core.errors import RunError
from copal_core.export.tables import write_zip
from copal_core.methods.facts import facts_of
from copal_core.store.run_store import RunStore
from copal_core.system import files

LOADER = '''"""Masks of pruned layers: weight name -> (out, in), True where the weight was kept."""

import json

import numpy as np
from safetensors import safe_open


def load_masks(path="masks.safetensors"):
    with safe_open(path, framework="numpy") as file:
        shapes = json.loads(file.metadata()["shapes"])
        return {
            name: np.unpackbits(file.get_tensor(name), axis=1, count=shape[1]).astype(bool)
            for name, shape in shapes.items()
        }
'''
_PARENTS = {"gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp"}


def weight_name(block: int, projection: str) -> str:
    """The parameter's name in a LLaMA checkpoint."""
    return f"model.layers.{block}.{_PARENTS.get(projection, 'self_attn')}.{projection}.weight"


def why_no_masks(store: RunStore, method: str, step: int) -> str:
    """Say why there are no masks to download; empty when there are."""
    if store.recorded:
        return "A recorded run keeps no masks; start a run of your own."
    blocks = store.info.get("checkpoint", {}).get("blocks", 0)
    kind = facts_of(Method.parse(method).name).artifact
    if kind == "neurons":
        return f"{method} removes neurons and makes no masks; export its checkpoint instead."
    if not blocks or not store.has_arrays(kind, method, step, blocks - 1):
        return f"{method} has not finished step {step}."
    if not _masked_blocks(store, method, step):
        return f"{method} makes factors and no masks; export its checkpoint instead."
    return ""


def _masked_blocks(store: RunStore, method: str, step: int) -> list[int]:
    """Blocks with masks: all of them for a criterion, those where a mask won a layer for a hybrid."""
    blocks = range(store.info["checkpoint"]["blocks"])
    return [block for block in blocks if store.has_arrays("masks", method, step, block)]


def write_masks(store: RunStore, method: str, step: int, out: Path) -> Path:
    """A zip of masks.safetensors, load_masks.py and README.md. Raises RunError when the run holds no such masks."""
    method = store.choose_method(method)
    why = why_no_masks(store, method, step)
    if why:
        raise RunError(why)
    packed, shapes = {}, {}
    for block in _masked_blocks(store, method, step):
        for projection, mask in store.masks(method, step, block).items():
            name = weight_name(block, projection)
            packed[name], shapes[name] = np.packbits(mask, axis=1), list(mask.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.safetensors"
        files.write_arrays(path, packed, {"shapes": json.dumps(shapes, sort_keys=True)})
        content = path.read_bytes()
    return write_zip(
        out,
        {
            "masks.safetensors": content,
            "load_masks.py": LOADER.encode(),
            "README.md": _words(store, method, step),
        },
    )


def _words(store: RunStore, method: str, step: int) -> bytes:
    lines = [
        f"# Masks of {method} after step {step}",
        "",
        f"{done_by(store, method, step)}; domains {', '.join(store.domains[:step])}.",
        f"Protocol: {store.protocol_stamp()}.",
        "",
        "`masks.safetensors` holds one entry a weight, a bit a weight, packed along the inputs (most significant bit",
        "first); the shapes are in its metadata. `load_masks.py` reads it: True where the weight was kept.",
        "",
        "```python",
        "from load_masks import load_masks",
        "",
        'for name, mask in load_masks("masks.safetensors").items():',
        "    model.get_parameter(name).data *= torch.from_numpy(mask)",
        "```",
        "",
        "A method that updates the kept weights (sparsegpt), or has factors beside masks (hybrid), needs its exported",
        "checkpoint: a mask alone is not its result.",
        "",
    ]
    return "\n".join(lines).encode()
