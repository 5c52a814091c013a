"""A loaded checkpoint, one decoder block at a time.

The model's own classes do all the computation. Decoder blocks are called with exactly the arguments that the model
passes them, recorded once from a real call and replayed, so that this file does not depend on the release of
transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copal_core.checkpoints import placement, residence
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.checkpoints.readers import BlockReader, MappedReader, PinnedReader, prefix_of
from copal_core.checkpoints.weights import WeightFiles
from copal_core.errors import CheckpointError

_EMBEDDING = "model.embed_tokens.weight"


class CastLinear(nn.Linear):
    """Linear layer whose weight may be stored in a narrower type than it computes in; it is widened for each use."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight.to(inputs.dtype), self.bias)


class Backbone:
    """Embedding, decoder blocks and head of a LLaMA-architecture model, for inference.

    Blocks either stay in memory once they are read, or are streamed: each is read while its predecessor computes and
    is released afterwards, so that a model larger than the memory can be processed. Both give the same numbers.

    Args:
        folder: config.json and safetensors files.
        device: resolved name such as 'cpu'; 'cuda:all' spreads the blocks over all GPUs.
        dtype: resolved name such as 'float32', the type to compute in.
        keep_blocks: keep blocks in memory; None keeps them if they fit into a share of the free memory.

    Raises:
        CheckpointError: files are missing or damaged, or do not match config.json.
    """

    def __init__(self, folder: Path, device: str, dtype: str, keep_blocks: bool | None = None) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        self.folder = folder
        self.device = torch.device("cuda:0" if device == placement.ALL else device)
        self.dtype: torch.dtype = getattr(torch, dtype)
        try:
            self.config = AutoConfig.from_pretrained(folder)
            self.config.dtype = self.dtype
            with torch.device("meta"):
                self._model = AutoModelForCausalLM.from_config(self.config, attn_implementation="sdpa")
        except Exception as error:  # an unknown activation or position scaling raises exceptions of any type
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise CheckpointError(
                f"config.json of '{folder}' has a value that transformers does not know ({reason}); "
                "correct it, or copy the file again"
            ) from error
        self.depth: int = self.config.num_hidden_layers
        self.files = WeightFiles(folder)
        self._model.eval().requires_grad_(False)
        if device == placement.ALL:
            self._places = placement.spread(self._model, self.dtype, self.depth)
            keep_blocks = True
        else:
            self._places = placement.on_one(self.device, self.depth)
        self._prepare_ends()
        self._prepare_blocks(keep_blocks)

    @property
    def architecture(self) -> str:
        """The model's class in transformers."""
        return type(self._model).__name__

    @property
    def keeps_blocks(self) -> bool:
        """True if blocks stay in memory; otherwise they are streamed one at a time."""
        return self._keep

    # -- embedding and head ------------------------------------------------------------------------------

    def _prepare_ends(self) -> None:
        """Load the final norm and the rotary tables, and check the shapes of embedding and head.

        Embedding rows are read when tokens are embedded, the head when logits are first computed.
        """
        inner = self._model.model
        norm = self.files.read("model.norm.", str(self._places.head), self.dtype)
        self._fill(inner.norm, "model.norm.", norm)
        tied = self.config.tie_word_embeddings or "lm_head.weight" not in self.files
        self._head = _EMBEDDING if tied else "lm_head.weight"
        self._head_loaded = False
        for name, module in ((_EMBEDDING, inner.embed_tokens), (self._head, self._model.lm_head)):
            if (stored := self._stored_shape(name)) != tuple(module.weight.shape):
                expected = tuple(module.weight.shape)
                raise _misfit(self.folder, name.removesuffix("weight"), f"{stored} instead of {expected}")
        # the rotary tables are not stored: they are computed from the configuration, on the real device
        inner.rotary_emb = type(inner.rotary_emb)(config=self.config).to(self.device)

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self.files.headers(name)[0].shape

    @torch.no_grad()
    def embed(self, tokens: Tensor) -> Tensor:
        """Embed token ids.

        Args:
            tokens: (windows, length) int64.

        Returns:
            (windows, length, hidden) in the backbone's dtype.

        Raises:
            CheckpointError: a token is outside the vocabulary.
        """
        highest = int(tokens.max())
        if highest >= self.config.vocab_size:
            raise CheckpointError(
                f"token {highest} is outside the vocabulary of {self.config.vocab_size} in '{self.folder}': the "
                "tokenizer belongs to another model; copy the model's own tokenizer into the folder"
            )
        rows = F.embedding(tokens.cpu(), self.files.view(_EMBEDDING))
        if not self._keep:
            self.files.release(_EMBEDDING)
        return rows.to(self.device).to(self.dtype)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the final norm and the head.

        Args:
            hidden: (windows, length, hidden), the output of the last block.

        Returns:
            (windows, length, vocabulary) logits.
        """
        head = self._model.lm_head
        if not self._head_loaded:
            weight = self.files.widened(self._head, str(self._places.head), self.dtype)
            self._fill(head, self._head.removesuffix("weight"), {"weight": weight})
            self._head_loaded = True
        return head(self._model.model.norm(hidden.to(head.weight.device)))

    def _release_head(self) -> None:
        if self._head_loaded and not self._keep:
            self._model.lm_head.to("meta")
            self._head_loaded = False
            self.files.release(self._head)

    # -- decoder blocks ------------------------------------------------------------------------------------

    def _prepare_blocks(self, keep: bool | None) -> None:
        self._resident = [False] * self.depth
        if keep is None:
            keep = residence.keeps_blocks(self._block_bytes(), placement.free_bytes(self.device))
        self._keep = keep
        self._readers: dict[torch.device, BlockReader] = {}
        for device in {*self._places.blocks}:
            if device.type == "cpu":
                self._readers[device] = MappedReader(self.files, self.dtype)
            else:
                self._readers[device] = PinnedReader(self.files, self.dtype, device)
        for module in self._model.model.layers.modules():
            if type(module) is nn.Linear:
                module.__class__ = CastLinear

    def _block_bytes(self) -> int:
        """Return the bytes of all decoder blocks in the dtype of the computation."""
        return self.dtype.itemsize * sum(tensor.size for tensor in self.files.headers("model.layers."))

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Yield decoder block `index` with the checkpoint's own (dense) weights, and start reading the next."""
        block = self._model.model.layers[index]
        self._release_head()
        if not self._resident[index]:
            self._fill(block, prefix_of(index), self._reader(index).take(index, self._keep))
            self._resident[index] = True
        following = (index + 1) % self.depth  # after the last block another pass often begins
        if not self._resident[following]:
            self._reader(following).read_ahead(following)
        try:
            yield block
        finally:
            if not self._keep:
                block.to("meta")
                self._resident[index] = False
                self._reader(index).release(index)

    def _reader(self, index: int) -> BlockReader:
        return self._readers[self._places.blocks[index]]

    def settle(self, index: int) -> None:
        """Free the memory pages of a streamed block that is still in use; pages used again are read again."""
        if not self._keep:
            self.files.release(prefix_of(index))

    def _fill(self, module: nn.Module, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        try:
            module.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            raise _misfit(self.folder, prefix, str(error).splitlines()[-1].strip()) from error
        module.requires_grad_(False)

    @torch.no_grad()
    def block_arguments(self, length: int) -> dict[str, Any]:
        """Record the keyword arguments that the model passes to every decoder block.

        They do not depend on the number of windows: the mask is causal and positions are shared.

        Args:
            length: of the windows, in tokens.
        """
        inner = self._model.model
        recorder = _Recorder()
        layers = inner.layers
        inner.layers = nn.ModuleList([recorder, *list(layers)[1:]])
        zeros = torch.zeros((1, length, self.config.hidden_size), dtype=self.dtype, device=self.device)
        try:
            inner(inputs_embeds=zeros, use_cache=False)
        except _Recorded:
            pass
        finally:
            inner.layers = layers
        return recorder.arguments

    def causal_lm(self) -> nn.Module:
        """Return the whole model with every block in memory, for training and generation."""
        self._keep = True
        model, device = self._model, str(self.device)
        for index in range(self.depth):
            with self.block(index):
                pass
        if model.model.embed_tokens.weight.is_meta:
            table = self.files.widened(_EMBEDDING, device, self.dtype)
            self._fill(model.model.embed_tokens, "model.embed_tokens.", {"weight": table})
        if self._head == _EMBEDDING and self._places.head == self.device:
            model.lm_head.weight = model.model.embed_tokens.weight
        elif not self._head_loaded:
            table = self.files.widened(self._head, str(self._places.head), self.dtype)
            self._fill(model.lm_head, "lm_head.", {"weight": table})
        self._head_loaded = True
        return placement.dispatched(model, self._places)


def _misfit(folder: Path, prefix: str, detail: str) -> CheckpointError:
    return CheckpointError(f"{folder}: tensors {prefix}* do not fit config.json ({detail})")


class _Recorded(Exception):
    """Stops the forward pass once the first block's arguments are known."""


class _Recorder(nn.Module):
    """Replaces the first decoder block and records the arguments of its call."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {}

    def forward(self, hidden: Tensor, **arguments: Any) -> Tensor:
        self.arguments = arguments
        raise _Recorded


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """Return projection name -> linear layer of one decoder block.

    Raises:
        CheckpointError: one of the seven projections is missing.
    """
    by_name = {
        name.rpartition(".")[2]: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    missing = [name for name in PROJECTIONS if name not in by_name]
    if missing:
        raise CheckpointError(
            f"the decoder block has no {', '.join(missing)}; only LLaMA-shaped blocks can be pruned"
        )
    return {name: by_name[name] for name in PROJECTIONS}


def compute_dtype(block: nn.Module) -> torch.dtype:
    """Return the dtype of a block's activations; the weights of a streamed block may be stored in a narrower one."""
    return next(parameter.dtype for parameter in block.parameters() if parameter.dim() == 1)


@contextmanager
def swapped(block: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace weights of a block within the context and restore the previous ones afterwards.

    Args:
        block: a decoder block.
        weights: projection -> (out, in).
    """
    layers = linears(block)
    previous = {name: layers[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            # a weight in the stored dtype loses nothing and stays so; any other is converted to compute with
            same = weight.dtype == previous[name].dtype
            layers[name].weight.data = weight if same else weight.to(compute_dtype(block))
        yield
    finally:
        for name, weight in previous.items():
            layers[name].weight.data = weight
