"""Statistics of the hidden neurons of a feed-forward layer, z = act(gate(x)) ⊙ up(x), shape (tokens, d_ff).

z is the input of `down_proj`. All totals are sums over tokens, gathered at the feed-forward groups alone.
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
_COLUMNS_AT_ONCE = 2048  # sorted at once, which bounds the working memory of a wide layer


def normal_scores(values: Tensor) -> Tensor:
    """Convert each column's ranks to quantiles of the standard normal distribution (van der Waerden scores).

    Equal values share their mean rank, so that a constant column scores zero. A strictly increasing map of a column
    does not change its scores.

    Args:
        values: (n, columns), any float dtype.

    Returns:
        (n, columns) float32.
    """
    import torch

    tokens = values.shape[0]
    ordered, order = values.float().sort(dim=0)
    # mean rank of a run of equal values: (first position + last position) / 2 + 1, from 1 to n
    position = torch.arange(tokens, device=values.device)[:, None].expand_as(order)
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ends = torch.ones_like(begins)
    ends[:-1] = begins[1:]
    first = torch.where(begins, position, 0).cummax(dim=0).values
    last = torch.where(ends, position, tokens).flip(0).cummin(dim=0).values.flip(0)
    rank = (first + last).float() / 2 + 1
    # score s = Φ⁻¹(rank / (n + 1)), then back to the order of the tokens
    scores = torch.special.ndtri(rank / (tokens + 1))
    return torch.empty_like(scores).scatter_(0, order, scores)


@dataclass(frozen=True)
class NormalScoreGram(Statistic):
    """Σ s sᵀ, (d_ff, d_ff), of the normal scores s of z; normalised, the correlation of a Gaussian copula.

    Ranking a whole text would need all its activations at once. Instead tokens are ranked within the chunk of (at
    most) 1024 tokens they were captured in, and the products are summed, which is additive over tokens, domains and
    workers. This measures how two neurons depend on each other from token to token, but not how their *levels* vary
    together from one chunk to another.
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
    """Σ z zᵀ, (d_ff, d_ff), from which one neuron's output is predicted by another's for compensation."""

    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)


class NeuronSquareSum(InputSquareSum):
    """Σ z², (d_ff,): how strongly each neuron is activated."""

    groups: ClassVar[tuple[str, ...] | None] = ("mlp_output",)


@dataclass(frozen=True)
class RowSensitivity(Statistic):
    """Σ_k |W_jk| Σ_n |y_nj||x_nk|, (d_ff,), summed over gate and up: COPAL's score of a neuron's rows.

    The sum over k is taken before the sum over tokens, so that no (out, in) total is needed.
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
    """Σ_j |W_jk| Σ_n |y_nj||z_nk|, (d_ff,): COPAL's score of a neuron's column of down."""

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
