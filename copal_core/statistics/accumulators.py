"""Additive statistics of an input group: the projections that read the same input X (tokens, in).

What a statistic is called, where it is gathered and how large its total is can be asked without torch, which only its
computation imports: an estimate of a run's memory needs no more.

The projections of a group are treated as one tall layer: their weights and outputs are stacked along
`out`, in the order of `GROUPS`, so that everything that depends on X alone is computed once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from copal_core.errors import InvalidValueError
from copal_core.system.torch_settings import add_product, factor_dtype

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STATISTICS: dict[str, type[Statistic]] = {}  # every statistic by its class's name, as methods ask for it
_PER_OUTPUT: set[str] = set()  # names of the totals that have one row for each output


class Statistic(ABC):
    """One additive quantity; `update` adds a batch of tokens to its running total.

    shape: of its total, in words: "in" (inputs), "out" (stacked outputs), "neurons" (half of gate's and up's outputs).
    groups: the input groups at which it is gathered; None: all. per_output: its total has one row for each
    stacked output; otherwise it belongs to the input alone, and every projection of the group has all of it.
    """

    name: ClassVar[str]
    shape: ClassVar[tuple[str, ...]]
    groups: ClassVar[tuple[str, ...] | None] = None
    per_output: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    needs_weight: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        STATISTICS[cls.__name__] = cls
        if cls.per_output:
            _PER_OUTPUT.add(cls.name)

    @classmethod
    def size(cls, rows: int, columns: int) -> tuple[int, ...]:
        """Return the total's shape in numbers, for a group with `rows` stacked outputs and `columns` inputs."""
        sizes = {"in": columns, "out": rows, "neurons": rows // 2}
        return tuple(sizes[dimension] for dimension in cls.shape)

    def zeros(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return the empty total of a group with `rows` stacked outputs and `columns` inputs, float32."""
        import torch

        return torch.zeros(self.size(rows, columns), device=device)

    @abstractmethod
    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        """Add a batch of tokens to `total` in place.

        Args:
            total: as `zeros` returned it.
            inputs: (tokens, in).
            outputs: W x of each projection in the group's order, (tokens, out) without bias; empty unless
                `needs_outputs`.
            weight: (out, in), stacked; None unless `needs_weight`.
        """


@dataclass(frozen=True)
class InputSquareSum(Statistic):
    """Σ x², (in,): the squared norm of every input feature (Wanda)."""

    name: ClassVar[str] = "input_square_sum"
    shape: ClassVar[tuple[str, ...]] = ("in",)

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        import torch

        total += torch.linalg.vector_norm(inputs.float(), dim=0).square()


@dataclass(frozen=True)
class InputGram(Statistic):
    """XᵀX, (in, in), for SparseGPT, whitened decompositions and output errors."""

    name: ClassVar[str] = "input_gram"
    shape: ClassVar[tuple[str, ...]] = ("in", "in")

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        x = inputs.to(factor_dtype(inputs))
        add_product(total, x, x)


@dataclass(frozen=True)
class AbsoluteCoupling(Statistic):
    """|Y|ᵀ|X|, (out, in): how strongly each output and each input are active together (COPAL)."""

    name: ClassVar[str] = "absolute_coupling"
    shape: ClassVar[tuple[str, ...]] = ("out", "in")
    per_output: ClassVar[bool] = True
    needs_outputs: ClassVar[bool] = True

    def update(self, total: Tensor, inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor | None) -> None:
        add_product(total, stacked_abs(outputs), inputs.to(factor_dtype(inputs)).abs())


def stacked_abs(outputs: Sequence[Tensor]) -> Tensor:
    """|Y| of a group's projections side by side: (tokens, Σ out), to be multiplied with `add_product`."""
    import torch

    first = outputs[0]
    columns = sum(y.shape[1] for y in outputs)
    stacked = torch.empty(first.shape[0], columns, device=first.device, dtype=factor_dtype(first))
    start = 0
    for y in outputs:
        torch.abs(y.to(stacked.dtype), out=stacked[:, start : start + y.shape[1]])
        start += y.shape[1]
    return stacked


@dataclass
class GroupStatistics:
    """Totals of one group over `tokens` tokens, by the statistic's name."""

    tokens: int = 0
    totals: dict[str, Tensor] = field(default_factory=dict)

    def require(self, name: str) -> Tensor:
        """Return a total by name. Raises InvalidValueError if it was not gathered."""
        if name not in self.totals:
            raise InvalidValueError(
                f"statistic '{name}' was not gathered; gathered: {', '.join(self.totals)}"
            )
        return self.totals[name]

    def mean(self, name: str) -> Tensor:
        """Return a total divided by the number of tokens, so that domains of different size are comparable.

        Raises:
            InvalidValueError: it was not gathered, or there are no tokens.
        """
        if self.tokens < 1:
            raise InvalidValueError(f"statistic '{name}' holds no tokens; calibrate first")
        return self.require(name) / self.tokens

    def rows(self, chosen: slice | Tensor) -> GroupStatistics:
        """Select the statistics of some of the stacked outputs, given as indices or a slice (which makes views)."""
        totals = {
            name: total[chosen] if name in _PER_OUTPUT else total for name, total in self.totals.items()
        }
        return GroupStatistics(self.tokens, totals)

    def by_rows(self, counts: Sequence[int]) -> list[GroupStatistics]:
        """Split the statistics by projection, given the number of outputs of each."""
        ends = list(accumulate(counts))
        return [self.rows(slice(end - count, end)) for end, count in zip(ends, counts, strict=True)]

    def plus(self, other: GroupStatistics) -> GroupStatistics:
        """Return the statistics of both sets of tokens together."""
        totals = {name: total + other.require(name) for name, total in self.totals.items()}
        return GroupStatistics(self.tokens + other.tokens, totals)


@dataclass
class BlockStatistics:
    """Statistics of one decoder block: group name -> totals."""

    groups: dict[str, GroupStatistics] = field(default_factory=dict)

    def plus(self, other: BlockStatistics) -> BlockStatistics:
        return BlockStatistics({name: group.plus(other.groups[name]) for name, group in self.groups.items()})

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names, for a file: 'group.statistic' and 'group.tokens'."""
        import torch

        flat: dict[str, Tensor] = {}
        for name, group in self.groups.items():
            flat[f"{name}.tokens"] = torch.tensor(group.tokens)
            flat.update({f"{name}.{statistic}": total for statistic, total in group.totals.items()})
        return flat

    @classmethod
    def from_tensors(cls, flat: Mapping[str, Tensor]) -> BlockStatistics:
        """Rebuild the statistics: the inverse of `to_tensors`."""
        groups: dict[str, GroupStatistics] = {}
        for key, value in flat.items():
            name, _, statistic = key.partition(".")
            group = groups.setdefault(name, GroupStatistics())
            if statistic == "tokens":
                group.tokens = int(value)
            else:
                group.totals[statistic] = value
        return cls(groups)
