"""Reading named tensors of a checkpoint folder, one at a time, from one or many safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from copal_core.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class WeightFiles:
    """The tensors of a folder by name; nothing is read until it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file_of = _file_of(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def read(self, prefix: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Tensors whose name starts with `prefix`, keyed by the rest of the name, on `device` as `dtype`.

        Raises CheckpointError when there are none or a file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        wanted: dict[str, list[str]] = {}
        for name, file in self._file_of.items():
            if name.startswith(prefix):
                wanted.setdefault(file, []).append(name)
        if not wanted:
            raise CheckpointError(
                f"{self._folder} holds no tensors named {prefix}*; the checkpoint is incomplete"
            )
        found = {}
        for file, names in wanted.items():
            try:
                with safe_open(self._folder / file, framework="pt", device=device) as tensors:
                    for name in names:
                        found[name[len(prefix) :]] = tensors.get_tensor(name).to(dtype)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{file} in {self._folder} cannot be read: {error}") from error
        return found


def _file_of(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the index of a sharded checkpoint or from the files' headers."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    from safetensors import SafetensorError, safe_open

    names: dict[str, str] = {}
    single = folder / "model.safetensors"  # what transformers reads; other files may be copies of it
    for path in [single] if single.is_file() else sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as tensors:
                names.update(dict.fromkeys(tensors.keys(), path.name))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path.name} in {folder} cannot be read: {error}") from error
    if not names:
        raise CheckpointError(f"{folder} holds no .safetensors file; save the model as safetensors")
    return names
