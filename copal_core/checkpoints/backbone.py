"""A loaded checkpoint, one decoder block at a time.

The model's own classes compute everything. Its decoder blocks are called with exactly the arguments
that the model passes them, captured once from the real call and replayed, so that a new release of
transformers changes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.weights import WeightFiles
from copal_core.errors import CheckpointError

# Projections that read the same input form one group and share its statistics.
GROUPS: dict[str, tuple[str, ...]] = {
    "attention_input": ("q_proj", "k_proj", "v_proj"),
    "attention_output": ("o_proj",),
    "mlp_input": ("gate_proj", "up_proj"),
    "mlp_output": ("down_proj",),
}
PROJECTIONS: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


class Backbone:
    """Embedding, decoder blocks and head of a LLaMA-architecture model, for inference.

    folder: config.json and safetensors files. device, dtype: resolved names such as 'cpu', 'float32'.
    keep_blocks: hold the blocks in memory once read; otherwise map a block's file pages each time it is
    visited and let go of them after, so that the model's size does not bound what fits. Default: on a GPU.
    """

    def __init__(self, folder: Path, device: str, dtype: str, keep_blocks: bool | None = None) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.folder = folder
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._keep = self.device.type != "cpu" if keep_blocks is None else keep_blocks
        try:
            self.config = AutoConfig.from_pretrained(folder)
            self.config.dtype = self.dtype
            with torch.device("meta"):
                self._model = AutoModelForCausalLM.from_config(self.config, attn_implementation="sdpa")
        except Exception as error:  # an unknown activation or position scaling, raised as any type
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise CheckpointError(
                f"config.json of '{folder}' has a value that transformers does not know ({reason}); "
                "correct it, or copy the file again"
            ) from error
        self.depth: int = self.config.num_hidden_layers
        self._files = WeightFiles(folder)
        self._model.eval().requires_grad_(False)
        self._load_ends()
        self._resident = [False] * self.depth

    def _load_ends(self) -> None:
        """Materialise everything but the decoder blocks: embedding, rotary tables, last norm, head."""
        inner = self._model.model
        self._assign(inner.embed_tokens, "model.embed_tokens.")
        self._assign(inner.norm, "model.norm.")
        if self.config.tie_word_embeddings or "lm_head.weight" not in self._files:
            self._model.lm_head.weight = inner.embed_tokens.weight
        else:
            self._assign(self._model.lm_head, "lm_head.")
        # its tables are no part of the files: computed from the configuration, on the real device
        inner.rotary_emb = type(inner.rotary_emb)(config=self.config).to(self.device)

    def _assign(self, module: nn.Module, prefix: str) -> None:
        tensors = self._files.read(prefix, str(self.device), self.dtype)
        try:
            module.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{self.folder}: tensors {prefix}* do not fit config.json ({detail})"
            ) from error
        module.requires_grad_(False)

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Decoder block `index` with the checkpoint's own (dense) weights."""
        block = self._model.model.layers[index]
        if not self._resident[index]:
            self._assign(block, f"model.layers.{index}.")
            self._resident[index] = True
        try:
            yield block
        finally:
            if not self._keep:
                block.to("meta")
                self._resident[index] = False

    @torch.no_grad()
    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (windows, length) int64 -> (windows, length, hidden).

        Raises CheckpointError for a token outside the vocabulary.
        """
        highest = int(tokens.max())
        if highest >= self.config.vocab_size:
            raise CheckpointError(
                f"token {highest} is outside the vocabulary of {self.config.vocab_size} in '{self.folder}': the "
                "tokenizer belongs to another model; copy the model's own tokenizer into the folder"
            )
        return self._model.model.embed_tokens(tokens.to(self.device))

    @torch.no_grad()
    def block_arguments(self, length: int) -> dict[str, Any]:
        """The keyword arguments that the model passes to every decoder block for windows of `length`.

        They do not depend on the number of windows: the mask is causal and positions are shared.
        """
        inner = self._model.model
        recorder = _Recorder()
        layers = inner.layers
        inner.layers = nn.ModuleList([recorder, *list(layers)[1:]])
        try:
            inner(input_ids=torch.zeros((1, length), dtype=torch.long, device=self.device), use_cache=False)
        except _Recorded:
            pass
        finally:
            inner.layers = layers
        return recorder.arguments

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (windows, length, hidden) after the last block -> (windows, length, vocabulary)."""
        return self._model.lm_head(self._model.model.norm(hidden))

    def causal_lm(self) -> nn.Module:
        """The whole model, every block in memory, for generation and export."""
        self._keep = True
        for index in range(self.depth):
            with self.block(index):
                pass
        return self._model


class _Recorded(Exception):
    """Raised to leave the model once the first block's arguments are known."""


class _Recorder(nn.Module):
    """Stands in for the first decoder block and keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden: Tensor, **arguments: Any) -> Tensor:
        self.arguments = arguments
        raise _Recorded


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """projection name -> linear layer of one decoder block.

    Raises CheckpointError when one of the seven is missing.
    """
    found = {
        name.rpartition(".")[2]: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    missing = [name for name in PROJECTIONS if name not in found]
    if missing:
        raise CheckpointError(
            f"the decoder block has no {', '.join(missing)}; only LLaMA-shaped blocks can be pruned"
        )
    return {name: found[name] for name in PROJECTIONS}


@contextmanager
def swapped(block: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the block compute with other weights (projection -> (out, in)); the old ones come back."""
    layers = linears(block)
    previous = {name: layers[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            layers[name].weight.data = weight.to(previous[name].dtype)
        yield
    finally:
        for name, weight in previous.items():
            layers[name].weight.data = weight
