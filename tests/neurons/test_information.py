"""Mutual information: against the closed form, against nearest neighbours, and where it must not change."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from copal_core.methods.information import (
    LARGEST,
    correlation_of,
    correlations,
    deviations,
    information,
    neighbour_information,
)
from copal_core.statistics.neurons import RANKED_TOGETHER, NormalScoreGram, normal_scores

TOKENS = 8192
COPULA, NEIGHBOURS = 0.03, 0.08  # nats of tolerance at 8192 tokens
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "cube": lambda x: x**3,
    "sigmoid": torch.sigmoid,
    "heavy tails": lambda x: x.sign() * x.abs().exp(),
}


def gaussians(rho: float, tokens: int = TOKENS, seed: int = 0) -> Tensor:
    """(tokens, 2) of correlation `rho`."""
    both = torch.randn(tokens, 2, generator=torch.Generator().manual_seed(seed))
    both[:, 1] = rho * both[:, 0] + math.sqrt(1 - rho**2) * both[:, 1]
    return both


def gram_of(values: Tensor, batch: int = RANKED_TOGETHER) -> Tensor:
    statistic = NormalScoreGram()
    total = statistic.zeros(1, values.shape[1], values.device)
    for part in values.split(batch):
        statistic.update(total, part, [], None)
    return total


def shared(values: Tensor) -> float:
    """Nats that the first two columns share by the product's own way."""
    gram = gram_of(values)
    return float(information(correlations(gram, slice(0, 1), deviations(gram)))[0, 1])


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.6, 0.9, 0.99, -0.8])
def test_the_copula_meets_the_closed_form(rho: float) -> None:
    assert shared(gaussians(rho)) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=COPULA)


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_neighbours_meet_the_closed_form(rho: float) -> None:
    one, other = gaussians(rho).double().numpy().T
    assert neighbour_information(one, other) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=NEIGHBOURS)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("rho", [0.4, 0.85])
def test_nonlinear_pairs_meet_the_reference(name: str, rho: float) -> None:
    values = gaussians(rho)
    values[:, 1] = MAPS[name](values[:, 1])
    one, other = values.double().numpy().T
    assert shared(values) == pytest.approx(neighbour_information(one, other), abs=COPULA + NEIGHBOURS)


@pytest.mark.parametrize("name", MAPS)
def test_monotone_maps_change_nothing(name: str) -> None:
    values = gaussians(0.7)
    mapped = torch.stack([MAPS[name](values[:, 0]), -MAPS[name](values[:, 1])], dim=1)
    assert shared(mapped) == pytest.approx(shared(values), abs=1e-4)
    assert shared(values * torch.tensor([1e-6, 1e6])) == pytest.approx(shared(values), abs=1e-4)


def test_independent_neurons_share_nothing() -> None:
    values = torch.randn(TOKENS, 60, generator=torch.Generator().manual_seed(1))
    values[:, ::2] = values[:, ::2].exp()
    gram = gram_of(values)
    nats = information(correlations(gram, slice(None), deviations(gram)))
    others = nats[~torch.eye(60, dtype=torch.bool)]
    assert float(others.mean()) == pytest.approx(0.5 / TOKENS, rel=0.2)  # what n tokens give by chance
    assert float(others.max()) < 10 / TOKENS
    one, other = values[:, :2].double().numpy().T
    assert neighbour_information(one, other) < NEIGHBOURS


def test_dependence_that_is_not_monotone_is_seen_by_neighbours_alone() -> None:
    """The stated limit of the copula."""
    x = torch.randn(TOKENS, generator=torch.Generator().manual_seed(2))
    values = torch.stack([x, x.square()], dim=1)
    assert shared(values) < 0.01
    assert neighbour_information(*values.double().numpy().T) > 1


def test_a_copy_shares_all_that_can_be_told_and_a_constant_nothing() -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(3))
    gram = gram_of(torch.stack([x, 2 * x + 1, torch.full_like(x, 0.5), -x], dim=1))
    nats = information(correlations(gram, slice(None), deviations(gram)))
    assert float(nats[0, 1]) == pytest.approx(LARGEST, abs=1.0)
    assert float(nats[0, 3]) == pytest.approx(LARGEST, abs=1.0)
    assert torch.equal(nats[2], torch.zeros(4, dtype=torch.double))


@pytest.mark.parametrize("nats", [0.0, 0.01, 0.5, 3.0])
def test_a_threshold_in_nats_is_a_correlation(nats: float) -> None:
    assert float(information(torch.tensor(correlation_of(nats), dtype=torch.double))) == pytest.approx(nats)


def test_normal_scores_share_ranks_of_equal_values() -> None:
    values = torch.tensor([[3.0, 0.0], [1.0, 0.0], [3.0, 0.0], [2.0, 5.0], [9.0, 0.0]])
    found = normal_scores(values)
    ranks = torch.tensor([[3.5, 2.5], [1.0, 2.5], [3.5, 2.5], [2.0, 5.0], [5.0, 2.5]])
    assert torch.allclose(found, torch.special.ndtri(ranks / 6))
    assert torch.equal(normal_scores(torch.ones(7, 1)), torch.zeros(7, 1))


def test_normal_scores_meet_scipy() -> None:
    from scipy.stats import norm, rankdata

    values = torch.randn(300, 5, generator=torch.Generator().manual_seed(4)).round(decimals=1)
    expected = norm.ppf(rankdata(values.numpy(), axis=0) / 301)
    assert np.allclose(normal_scores(values).numpy(), expected, atol=1e-5)


def test_the_gram_does_not_depend_on_how_tokens_arrive_in_whole_chunks() -> None:
    values = gaussians(0.5, 4 * RANKED_TOGETHER)
    assert torch.allclose(gram_of(values, 4 * RANKED_TOGETHER), gram_of(values), atol=1e-2)
    halves = gram_of(values[: 2 * RANKED_TOGETHER]) + gram_of(values[2 * RANKED_TOGETHER :])
    assert torch.allclose(halves, gram_of(values), atol=1e-2)
