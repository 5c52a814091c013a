"""Statistics of the hidden neurons of a feed-forward layer, z = act(gate(x)) ⊙ up(x), shape (tokens, d_ff).

z is what `down_proj` reads. All totals are sums over tokens, gathered at the feed-forward groups alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from copal_core.errors import InvalidValueError
from copal_core.statistics.accumulators import InputGram, InputSquareSum, Statistic, stacked_abs

if TYPE_CHECKING:
    from torch import Tensor

RANKED_TOGETHER = 1024  # tokens
_COLUMNS_AT_ONCE = 2048  # sorted at once: bounds what a wide layer needs besides its totals


def normal_scores(values: Tensor) -> Tensor:
    """Each column's ranks as quantiles of the standard normal distribution (van der Waerden scores).

    values: (n, columns), any float dtype. Equal values share their mean rank, so a constant column scores zero.
    Returns (n, columns) float32. Any strictly increasing map of a column leaves its scores as they are.
    """
    import torch

    tokens = values.shape[0]
    ordered, order = values.float().sort(dim=0)
    place = torch.arange(tokens, device=values.device)[:, None].expand_as(order)
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ends = torch.ones_like(begins)
    ends[:-1] = begins[1:]
    first = torch.where(begins, place, 0).cummax(dim=0).values
    last = torch.where(ends, place, tokens).flip(0).cummin(dim=0).values.flip(0)
    rank = (first + last).float() / 2 + 1  # 1 to n
    scores = torch.special.ndtri(rank / (tokens + 1))
    return torch.empty_like(scores).scatter_(0, order, scores)


@dataclass(frozen=True)
class NormalScoreGram(Statistic):
    """(d_ff, d_ff) Σ s sᵀ of the normal scores s of z: over its diagonal, the correlation of a Gaussian copula.

    The ranks of a whole text would need all its activations at once. Tokens are ranked among the (at most) 1024
    neighbours they were captured with, and the products summed: additive over tokens, domains and workers. What is
    lost is the dependence of two neurons' *levels* from one stretch of 1024 tokens to another; what remains is
    their dependence from token to token.
    """

    name: ClassVar[str] = "normal_score_gram"
    shape: ClassVar[tuple[str, ...]] = ("in", "in")
    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        import torch

        for chunk in inputs.split(RANKED_TOGETHER):
            parts = [normal_scores(part) for part in chunk.split(_COLUMNS_AT_ONCE, dim=1)]
            scores = torch.cat(parts, dim=1)  # (tokens, d_ff)
            total.addmm_(scores.T, scores)


class NeuronGram(InputGram):
    """(d_ff, d_ff) Σ z zᵀ: what one neuron's output says of another's, for compensation."""

    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)


class NeuronSquareSum(InputSquareSum):
    """(d_ff,) Σ z²: how strongly each neuron fires."""

    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)


@dataclass(frozen=True)
class RowSensitivity(Statistic):
    """(d_ff,) Σ_k |W_jk| Σ_n |y_nj||x_nk|, summed over gate and up: COPAL's score of a neuron's rows.

    The sum over k is taken before the sum over tokens, so that no (out, in) total is kept.
    """

    name: ClassVar[str] = "row_sensitivity"
    shape: ClassVar[tuple[str, ...]] = ("neurons",)
    groups: ClassVar[tuple[str, ...] | None] = ("mlp_input",)
    needs_outputs: ClassVar[bool] = True
    needs_weight: ClassVar[bool] = True

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        reach = inputs.float().abs() @ _required(weight).abs().T  # (tokens, 2 d_ff)
        both = (reach * stacked_abs(outputs)).sum(dim=0)
        total += both[: len(total)] + both[len(total) :]


@dataclass(frozen=True)
class ColumnSensitivity(Statistic):
    """(d_ff,) Σ_j |W_jk| Σ_n |y_nj||z_nk|: COPAL's score of a neuron's column of down."""

    name: ClassVar[str] = "column_sensitivity"
    shape: ClassVar[tuple[str, ...]] = ("in",)
    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)
    needs_outputs: ClassVar[bool] = True
    needs_weight: ClassVar[bool] = True

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        reach = stacked_abs(outputs).float() @ _required(weight).abs()  # (tokens, d_ff)
        total += (reach * inputs.float().abs()).sum(dim=0)


def _required(weight: Tensor | None) -> Tensor:
    if weight is None:
        raise InvalidValueError("this statistic needs the layer's weight")
    return weight.float()
