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

TOKENS_PER_STEP = 512
_CLIP = 1.0
_WARM_UP = 0.1  # share of the steps in which the rate rises; it falls by a cosine after that

Report = Callable[
    [str, int], None
]  # what is done, and the tokens of the training step that begins; may raise


@dataclass(frozen=True)
class Budget:
    """tokens: trained on at most; rates follow the parameter groups. label: what progress is called."""

    tokens: int
    label: str
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    losses: mean nats a token of every step. tokens: trained on, counted again in every pass. stopped: why it ended
    early, else empty. seen: the numbers of the windows trained on, of `length` tokens each.
    """

    losses: tuple[float, ...] = ()
    tokens: int = 0
    stopped: str = ""
    seen: frozenset[int] = frozenset()
    length: int = 0

    @property
    def distinct(self) -> int:
        """Tokens of text trained on, each counted once."""
        return len(self.seen) * self.length

    def then(self, later: Outcome) -> Outcome:
        """This training and a later one on the same windows as one."""
        return Outcome(
            self.losses + later.losses,
            self.tokens + later.tokens,
            self.stopped or later.stopped,
            self.seen | later.seen,
            self.length or later.length,
        )


def train(
    model: nn.Module,
    parameters: Sequence[tuple[Sequence[nn.Parameter], float]],
    windows: Tensor,
    budget: Budget,
    report: Report = lambda label, tokens: None,
) -> Outcome:
    """Train `parameters` (groups of parameters with a learning rate each) on `windows` (count, length) int64.

    Windows come in a seeded order, over and over until the budget is spent. Everything else in the model stands
    still. What `report` raises (Cancelled) ends the training; the parameters then are those of the last step.
    """
    count, length = windows.shape
    per_step = min(max(1, TOKENS_PER_STEP // length), count)
    steps = budget.tokens // (per_step * length)
    learning = [parameter for group, _ in parameters for parameter in group]
    if steps < 1 or not learning:
        return Outcome()
    optimizer = torch.optim.AdamW(
        [{"params": list(group), "lr": rate} for group, rate in parameters], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    good = _copy(learning)
    losses: list[float] = []
    seen: set[int] = set()

    def outcome(stopped: str = "") -> Outcome:
        return Outcome(tuple(losses), len(losses) * per_step * length, stopped, frozenset(seen), length)

    for step, batch in zip(range(steps), _batches(count, per_step, budget.seed), strict=False):
        report(budget.label, per_step * length)
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = batch_loss(model, windows[batch].to(learning[0].device))
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
            return outcome(why)
        losses.append(value)
        seen.update(batch.tolist())
        _restore(good, learning)  # their loss and gradient are finite: good
        optimizer.step()
        schedule.step()
    if not _finite(learning) or not math.isfinite(
        _final_loss(model, windows[:per_step].to(learning[0].device))
    ):
        _restore(learning, good)
        return outcome("the last step left the finite numbers; it was undone")
    return outcome()


def batch_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean negative log-likelihood of the predicted tokens. tokens: (windows, length)."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]  # (windows, length - 1, vocabulary)
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def _final_loss(model: nn.Module, tokens: Tensor) -> float:
    return float(batch_loss(model, tokens))


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Numbers of `size` windows of `count`, pass after pass; a pass leaves out the windows that fill no batch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].split(size)


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
