"""Random layers with statistics of correlated inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from copal_core.statistics.accumulators import GroupStatistics


def random_layer(
    rows: int, columns: int, tokens: int, seed: int = 0, dead: int = 0
) -> tuple[Tensor, GroupStatistics]:
    """A weight and statistics of correlated inputs; singular when there are fewer tokens than inputs."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(tokens, columns, generator=generator) @ mix
    inputs[:, :dead] = 0
    weight = torch.randn(rows, columns, generator=generator)
    totals = {
        "input_gram": inputs.T @ inputs,
        "input_square_sum": inputs.square().sum(dim=0),
        "absolute_coupling": (inputs @ weight.T).abs().T @ inputs.abs(),
    }
    return weight, GroupStatistics(tokens, totals)


@pytest.fixture(scope="session")
def layer() -> Callable[..., tuple[Tensor, GroupStatistics]]:
    """layer(rows, columns, tokens, seed=0, dead=0) -> weight, statistics."""
    return random_layer
