"""Speed of 2:4 kernels on this machine for layers of given shapes, measured beside dense ones.

Half of a 2:4 matrix is not stored, and a GPU with sparse matrix units may multiply it faster: on many cards and
shapes it does not. So nothing is promised; both are timed on the same inputs, one after the other.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_WARM = 3
_REPEATS = 15


@dataclass(frozen=True)
class SparseSpeed:
    """One layer shape. Seconds of one product with `tokens` inputs; sparse is None where `why_not` says so.

    error: largest difference of the two products, relative to the largest output.
    """

    name: str
    rows: int
    columns: int
    tokens: int
    dense: float
    sparse: float | None
    error: float | None
    why_not: str = ""

    @property
    def ratio(self) -> float | None:
        """Dense seconds by sparse seconds: above 1 the 2:4 kernel is faster."""
        return self.dense / self.sparse if self.sparse else None


@torch.no_grad()
def compare(
    shapes: Mapping[str, tuple[int, int]], tokens: int, device: str, dtype: torch.dtype
) -> list[SparseSpeed]:
    """Dense and 2:4 products of each (out, in), with random weights. Never raises for a missing kernel."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for name, (rows, columns) in shapes.items():
        weight = torch.randn(rows, columns, generator=generator).to(device, dtype)
        weight *= two_of_four(weight)
        inputs = torch.randn(tokens, columns, generator=generator).to(device, dtype)
        dense = seconds_of(lambda w=weight, x=inputs: F.linear(x, w), device)  # type: ignore[misc]
        sparse, error, why_not = _sparse(weight, inputs, device)
        found.append(SparseSpeed(name, rows, columns, tokens, dense, sparse, error, why_not))
    return found


def two_of_four(weight: Tensor) -> Tensor:
    """(out, in) bool: the two largest of each four along the inputs."""
    groups = weight.abs().reshape(weight.shape[0], -1, 4)
    kept = torch.zeros_like(groups, dtype=torch.bool)
    return kept.scatter_(-1, groups.topk(2, dim=-1).indices, True).reshape(weight.shape)


def _sparse(weight: Tensor, inputs: Tensor, device: str) -> tuple[float | None, float | None, str]:
    if not device.startswith("cuda"):
        return None, None, "2:4 kernels exist for CUDA alone"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the interface is a prototype, and says so each time
            packed = torch.sparse.to_sparse_semi_structured(weight)
            expected, computed = F.linear(inputs, weight).float(), F.linear(inputs, packed).float()
            error = float((expected - computed).abs().max() / expected.abs().max())
            return seconds_of(lambda: F.linear(inputs, packed), device), error, ""
    except (RuntimeError, NotImplementedError, ValueError) as error:  # no unit, no kernel, no such shape
        return None, None, str(error).splitlines()[0][:160]


def seconds_of(compute: Callable[[], object], device: str) -> float:
    """Median seconds of `compute`, after it has warmed up."""
    cuda = device.startswith("cuda")
    taken = []
    for turn in range(_WARM + _REPEATS):
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            compute()
            end.record()
            torch.cuda.synchronize(device)
            seconds = begin.elapsed_time(end) / 1000
        else:
            started = time.perf_counter()
            compute()
            seconds = time.perf_counter() - started
        if turn >= _WARM:
            taken.append(seconds)
    return statistics.median(taken)
