"""Continued pretraining of a few parameters: AdamW, clipped gradients, a token budget, a fixed seed.

A loss that is not finite stops the training, and the parameters of the last finite loss stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copal_core.errors import Cancelled

TOKENS_PER_STEP = 512
_CLIP = 1.0
_WARM_UP = 0.1  # share of the steps in which the rate rises; it falls by a cosine after that

Report = Callable[[str, int, int], None]  # label, tokens done, tokens in all


@dataclass(frozen=True)
class Budget:
    """tokens: trained on at most; rates follow the parameter groups. label: what progress is called."""

    tokens: int
    label: str
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """losses: mean nats a token of every step. tokens: trained on. stopped: why it ended early, else empty."""

    losses: tuple[float, ...]
    tokens: int
    stopped: str = ""


def train(
    model: nn.Module,
    parameters: Sequence[tuple[Sequence[nn.Parameter], float]],
    windows: Tensor,
    budget: Budget,
    report: Report = lambda label, done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train `parameters` (groups of parameters with a learning rate each) on `windows` (count, length) int64.

    Windows come in a seeded order, over and over until the budget is spent. Everything else in the model stands
    still. Raises Cancelled when `should_stop` says so; the parameters then are those of the last step.
    """
    per_step = max(1, TOKENS_PER_STEP // windows.shape[1])
    steps = budget.tokens // (per_step * windows.shape[1])
    learning = [parameter for group, _ in parameters for parameter in group]
    if steps < 1 or not learning:
        return Outcome((), 0)
    optimizer = torch.optim.AdamW(
        [{"params": list(group), "lr": rate} for group, rate in parameters], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    good = _copy(learning)
    losses: list[float] = []
    batches = _batches(windows, per_step, budget.seed)
    for step in range(steps):
        if should_stop():
            raise Cancelled("training was cancelled")
        report(budget.label, step * per_step * windows.shape[1], budget.tokens)
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = batch_loss(model, next(batches).to(learning[0].device))
            value = float(loss.detach())
            if math.isfinite(value):
                loss.backward()
        # the norm of no gradient at all is 0, not NaN: a loss that is not finite has to be asked for
        norm = (
            torch.nn.utils.clip_grad_norm_(learning, _CLIP)
            if math.isfinite(value)
            else torch.tensor(math.nan)
        )
        if not bool(torch.isfinite(norm)):
            _restore(learning, good)
            why = f"the loss stopped being finite after {step} steps; the last good state was kept; use a smaller rate"
            return Outcome(tuple(losses), len(losses) * per_step * windows.shape[1], why)
        losses.append(value)
        _restore(good, learning)  # their loss and gradient are finite: good
        optimizer.step()
        schedule.step()
    if not _finite(learning) or not math.isfinite(
        _final_loss(model, windows[:per_step].to(learning[0].device))
    ):
        _restore(learning, good)
        return Outcome(
            tuple(losses),
            len(losses) * per_step * windows.shape[1],
            "the last step left the finite numbers; it was undone",
        )
    return Outcome(tuple(losses), len(losses) * per_step * windows.shape[1])


def batch_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean negative log-likelihood of the predicted tokens. tokens: (windows, length)."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]  # (windows, length - 1, vocabulary)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def _final_loss(model: nn.Module, tokens: Tensor) -> float:
    return float(batch_loss(model, tokens))


def _batches(windows: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(windows), generator=generator)
        whole = len(order) - len(order) % size if len(order) >= size else len(order)
        for start in range(0, whole, size):
            yield windows[order[start : start + size]]


def _rate(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _copy(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


@torch.no_grad()
def _restore(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _finite(parameters: Sequence[nn.Parameter]) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in parameters)
