"""Sensitivity of the layer's output to perturbing weight and input, |W|·Σ|∇| (COPAL, arXiv:2405.02347).

For y = f(x, W) the output moves by dy = S_W dW + S_x dx, with S_W = ∂f/∂W and S_x = ∂f/∂x. Under the
relative perturbations dW = εW and dx = εx one token's loss is ‖dy‖², whose gradient with respect to the
weight perturbation is 2·dy·S_W. The importance of a weight is |W ⊙ Σ|∇||, with the absolute value taken
per token before summing, because signed gradients cancel over tokens.

For a linear layer dy = 2εWx, so that Σ|∇_jk| = 4ε Σ|y_j||x_k|, and the score is |W| ⊙ |Y|ᵀ|X| up to the
constant 4ε, by which every estimator here divides:

closed-form         the matrix product |Y|ᵀ|X|, which costs as much as the layer's forward pass (default)
finite-difference   S_W dW and S_x dx by finite differences of f, as the paper describes
autograd            the exact derivatives by automatic differentiation, token by token: slow, for reference
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import AbsoluteCoupling, GroupStatistics, Statistic

ESTIMATORS = ("closed-form", "finite-difference", "autograd")
_TOKENS_AT_ONCE = 8  # autograd holds one gradient (out, in) per token


@dataclass(frozen=True)
class FiniteDifferenceCoupling(AbsoluteCoupling):
    """|dY|ᵀ|X| / 2ε with dY from finite differences of the layer, with relative step `epsilon`."""

    epsilon: float
    needs_weight: ClassVar[bool] = True

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        x, w = inputs.float(), _required(weight)
        y = F.linear(x, w)  # (tokens, out)
        by_weight = F.linear(x, w + self.epsilon * w) - y  # S_W dW
        by_input = F.linear(x + self.epsilon * x, w) - y  # S_x dx
        dy = (by_weight + by_input) / (2 * self.epsilon)
        total.addmm_(dy.abs().T, x.abs())


@dataclass(frozen=True)
class AutogradCoupling(AbsoluteCoupling):
    """Σ|∂‖dy‖²/∂dW| / 4ε by automatic differentiation, one gradient for each token."""

    epsilon: float
    needs_weight: ClassVar[bool] = True

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        from torch.func import grad, jvp, vmap

        w = _required(weight)

        def loss(d_weight: Tensor, x: Tensor) -> Tensor:
            by_weight = jvp(lambda v: F.linear(x, v), (w,), (d_weight,))[1]
            by_input = jvp(lambda v: F.linear(v, w), (x,), (self.epsilon * x,))[1]
            return (by_weight + by_input).square().sum()

        per_token = vmap(grad(loss), in_dims=(None, 0))
        for chunk in inputs.float().split(_TOKENS_AT_ONCE):
            gradient = per_token(self.epsilon * w, chunk)  # (tokens, out, in)
            total += gradient.abs().sum(dim=0) / (4 * self.epsilon)


@CRITERIA.register("copal")
@dataclass(frozen=True)
class Copal(Criterion):
    """|W_jk| times the mean over tokens of |y_j||x_k|.

    Attributes:
        estimator: closed-form, finite-difference or autograd; see the module's docstring.
        epsilon: relative perturbation of weight and input.
    """

    cost: ClassVar[float] = 3.0
    colour: ClassVar[str] = "#D55E00"
    gathers: ClassVar[tuple[str, ...]] = ("AbsoluteCoupling",)

    estimator: str = "closed-form"
    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise InvalidValueError(
                f"estimator '{self.estimator}' is not known; known: {', '.join(ESTIMATORS)}"
            )
        if not 0 < self.epsilon <= 1:
            raise InvalidValueError(f"epsilon = {self.epsilon} is not a relative step; use 0 < epsilon <= 1")

    def statistics(self) -> tuple[Statistic, ...]:
        if self.estimator == "finite-difference":
            return (FiniteDifferenceCoupling(self.epsilon),)
        if self.estimator == "autograd":
            return (AutogradCoupling(self.epsilon),)
        return super().statistics()

    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        return weight.float().abs() * statistics.mean("absolute_coupling")


def _required(weight: Tensor | None) -> Tensor:
    if weight is None:
        raise InvalidValueError("this estimator perturbs the layer and needs its weight")
    return weight.float()
