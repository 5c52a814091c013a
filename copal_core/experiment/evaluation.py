"""Perplexity of a model variant: dense blocks with some weights replaced, one block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, swapped
from copal_core.errors import InvalidValueError, NumericalError
from copal_core.statistics.blockwise import HiddenStates

_LOGITS_AT_ONCE = {"cpu": 8_000_000, "cuda": 400_000_000}  # numbers held while the loss is computed

Weights = Mapping[str, Tensor]


def perplexity(nats: float, tokens: int) -> float:
    """exp(mean negative log-likelihood). `nats`: summed over `tokens` predicted tokens.

    Raises InvalidValueError without tokens and NumericalError when `nats` is not finite.
    """
    if tokens < 1:
        raise InvalidValueError(f"perplexity needs at least one predicted token, got {tokens}")
    if not math.isfinite(nats):
        raise NumericalError(f"the summed loss is {nats}; perplexity is not defined")
    mean = nats / tokens
    return math.exp(mean) if mean < 700 else math.inf


@torch.no_grad()
def model_perplexity(model: nn.Module, windows: Tensor) -> float:
    """Return the perplexity of a whole causal language model of transformers, a window at a time.

    windows: (count, length) int64. Raises NumericalError when the model's numbers are not finite.
    """
    nats = 0.0
    for window in windows.to(next(model.parameters()).device):
        logits = model(window[None]).logits[0, :-1].float()  # (length - 1, vocabulary)
        nats += float(F.cross_entropy(logits, window[1:].to(logits.device), reduction="sum").double())
    return perplexity(nats, windows.shape[0] * (windows.shape[1] - 1))


@dataclass(frozen=True)
class Loss:
    """Summed negative log-likelihood in nats over `tokens` predicted tokens.

    nonfinite_windows: windows whose loss was NaN or infinite; the sum then is not finite either.
    """

    nats: float
    tokens: int
    nonfinite_windows: int

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens), infinity when the model produced numbers that are not finite."""
        return perplexity(self.nats, self.tokens) if math.isfinite(self.nats) else math.inf


def no_change(index: int, block: nn.Module) -> Weights:
    """The dense model."""
    return {}


@torch.no_grad()
def token_losses(
    backbone: Backbone,
    sets: Sequence[Tensor],
    weights_of: Callable[[int, nn.Module], Weights] = no_change,
    visit: Callable[[int], None] = lambda index: None,
) -> list[Tensor]:
    """Loss of every predicted token of every set of windows, in nats.

    sets: (windows, length) int64 each. weights_of(index, block): what replaces weights of that block.
    visit: called after each block (progress, cancel). Returns (windows, length - 1) float32 on the CPU each.
    """
    states = HiddenStates(backbone, sets)
    for index in range(backbone.depth):
        with backbone.block(index) as block, swapped(block, weights_of(index, block)):
            states.advance(block)
        visit(index)
    return [head_losses(backbone, states.batches(number), windows) for number, windows in enumerate(sets)]


@torch.no_grad()
def head_losses(backbone: Backbone, batches: Iterable[Tensor], windows: Tensor) -> Tensor:
    """Loss of every predicted token, from the hidden states after the last block.

    batches: (windows, length, hidden) each, together all of `windows` (windows, length) int64.
    Returns (windows, length - 1) float32 on the CPU, in nats.
    """
    each = (hidden for batch in batches for hidden in batch.to(backbone.device))  # (length, hidden)
    return torch.stack([_window_loss(backbone, h, w) for h, w in zip(each, windows, strict=True)])


def evaluate(
    backbone: Backbone,
    sets: Sequence[Tensor],
    weights_of: Callable[[int, nn.Module], Weights] = no_change,
    visit: Callable[[int], None] = lambda index: None,
) -> list[Loss]:
    """The summed loss of each set of windows; see `token_losses`."""
    return [summarise(losses) for losses in token_losses(backbone, sets, weights_of, visit)]


def summarise(losses: Tensor) -> Loss:
    """losses (windows, length - 1). Windows that are not finite are counted, and never left out."""
    by_window = losses.double().sum(dim=1)
    nonfinite = int((~torch.isfinite(by_window)).sum())
    return Loss(float(by_window.sum()), losses.numel(), nonfinite)


def _window_loss(backbone: Backbone, hidden: Tensor, tokens: Tensor) -> Tensor:
    """hidden (length, hidden), tokens (length,) -> (length - 1,) float32, a bounded part of the logits at a time."""
    targets = tokens[1:]
    at_once = max(1, _LOGITS_AT_ONCE[hidden.device.type] // backbone.config.vocab_size)
    parts = []
    for h, target in zip(hidden[:-1].split(at_once), targets.split(at_once), strict=True):
        logits = backbone.logits(h[None])[0]  # (tokens, vocabulary)
        parts.append(F.cross_entropy(logits.float(), target.to(logits.device), reduction="none"))
    return torch.cat(parts).cpu()
