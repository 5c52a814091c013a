"""Writer of checkpoints in transformers' format, shard by shard, with at most one shard in memory."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.headers import INDEX

SHARD_BYTES = 1_000_000_000
_WHOLE = "model.safetensors"

Weights = Mapping[str, Tensor]


class ShardWriter:
    """Collects tensors and writes a file whenever a shard is full.

    A model that fits into one shard becomes model.safetensors, a larger one numbered files with an index.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._open: dict[str, Tensor] = {}
        self._bytes = 0
        self._total = 0
        self._parameters = 0
        self._shards: list[tuple[Path, list[str]]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Append a tensor; it is held in memory until its shard is written."""
        if self._open and self._bytes + tensor.nbytes > self._limit:
            self._write()
        self._open[name] = tensor.detach().to("cpu").contiguous()
        self._bytes += tensor.nbytes
        self._total += tensor.nbytes
        self._parameters += tensor.numel()

    def finish(self) -> None:
        """Write the remaining tensors, and the index if there are several files."""
        if self._open:
            self._write()
        if len(self._shards) == 1:
            self._shards[0][0].rename(self._folder / _WHOLE)
            return
        shard_of: dict[str, str] = {}
        for number, (path, names) in enumerate(self._shards, start=1):
            final = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            path.rename(self._folder / final)
            shard_of |= dict.fromkeys(names, final)
        metadata = {"total_parameters": self._parameters, "total_size": self._total}
        index = json.dumps({"metadata": metadata, "weight_map": shard_of}, indent=2, sort_keys=True)
        (self._folder / INDEX).write_text(index + "\n", encoding="utf-8")

    def _write(self) -> None:
        path = self._folder / f"model-{len(self._shards) + 1:05d}.safetensors"
        save_file(self._open, path, metadata={"format": "pt"})
        self._shards.append((path, list(self._open)))
        self._open, self._bytes = {}, 0


def write_checkpoint(
    backbone: Backbone,
    folder: Path,
    weights_of: Callable[[int, nn.Module], Weights],
    lossless: bool,
    shard_bytes: int = SHARD_BYTES,
    **changed: Any,
) -> None:
    """Write config.json and the weights of a model with some weights of its blocks replaced.

    Args:
        backbone: the original model.
        folder: to write into.
        weights_of: returns the replaced tensors of block `index`, by projection, biases as 'projection.bias'.
        lossless: every number is a stored one or zero, so that the stored dtype loses nothing and is used;
            otherwise everything is written in the dtype of the backbone's computation.
        shard_bytes: largest size of a weight file.
        **changed: entries of the configuration to replace.
    """
    dtype = stored_dtype(backbone) if lossless else backbone.dtype
    writer = ShardWriter(folder, shard_bytes)
    for name, tensor in _ends(backbone):
        writer.add(name, tensor.to(dtype))
    for index in range(backbone.depth):
        with backbone.block(index) as block, torch.no_grad():
            replaced = weights_of(index, block)
            for name, tensor in block.state_dict().items():
                key = ".".join(name.removesuffix(".weight").split(".")[1:])  # without self_attn or mlp
                writer.add(f"model.layers.{index}.{name}", replaced.get(key, tensor).to(dtype))
    writer.finish()
    _write_configuration(backbone, folder, dtype, changed)


def stored_dtype(backbone: Backbone) -> torch.dtype:
    """Return the dtype of the checkpoint's files."""
    return backbone.files.view("model.embed_tokens.weight").dtype


def _ends(backbone: Backbone) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor outside the decoder blocks."""
    yield "model.embed_tokens.weight", backbone.files.view("model.embed_tokens.weight")
    yield "model.norm.weight", backbone.files.view("model.norm.weight")
    if not backbone.config.tie_word_embeddings:
        tied = "lm_head.weight" not in backbone.files
        table = backbone.files.view("model.embed_tokens.weight" if tied else "lm_head.weight")
        yield "lm_head.weight", table.clone() if tied else table


def _write_configuration(
    backbone: Backbone, folder: Path, dtype: torch.dtype, changed: Mapping[str, Any]
) -> None:
    from transformers import GenerationConfig

    config = copy.deepcopy(backbone.config)
    config.dtype = str(dtype).removeprefix("torch.")
    config.architectures = [backbone.architecture]
    for name, value in changed.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    generation = backbone.folder / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, folder / generation.name)
    else:
        GenerationConfig.from_model_config(config).save_pretrained(folder)
