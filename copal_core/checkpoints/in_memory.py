"""A model that a caller holds in memory, as a checkpoint's folder."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from copal_core.checkpoints.architecture import shape_from_config
from copal_core.system import paths


def save_model(model: Any, tokenizer: Any) -> str:
    """Save a model with its tokenizer. Returns the folder, the same for the same weights.

    Raises CheckpointError for a model that is no LLaMA, before anything is written.
    """
    kind = type(model).__name__
    shape_from_config({**model.config.to_dict(), "architectures": [kind]}, f"the {kind} in memory")
    with tempfile.TemporaryDirectory(dir=paths.process_folder()) as saved:
        described = dict(vars(model.config))
        try:
            model.save_pretrained(saved)
        finally:
            vars(model.config).update(
                described
            )  # saving writes the dtype and the class into the caller's own
        tokenizer.save_pretrained(saved)
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(saved).rglob("*") if path.is_file()):
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        folder = Path(paths.process_folder(), f"{kind}-{digest.hexdigest()[:12]}")
        if not folder.exists():
            Path(saved).rename(folder)
    return str(folder)
