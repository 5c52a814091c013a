"""Metrics on matrices worked out by hand, and the records they are read from."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from copal_core.analysis import metrics
from copal_core.analysis.results import perplexity_matrix, stasis_by_step
from copal_core.errors import InvalidValueError, NumericalError
from copal_core.experiment.evaluation import perplexity

# three domains: row 0 dense, then after each step
R = np.array(
    [
        [10.0, 20.0, 30.0],
        [12.0, 26.0, 39.0],
        [15.0, 22.0, 36.0],
        [19.0, 21.0, 33.0],
    ]
)


def test_backward_transfer() -> None:
    # (19 - 12) and (21 - 22), halved
    assert metrics.backward_transfer(R) == pytest.approx(3.0)


def test_backward_transfer_needs_two_domains() -> None:
    assert metrics.backward_transfer(np.array([[10.0], [12.0]])) is None


def test_average_is_of_the_last_row() -> None:
    assert metrics.average_perplexity(R) == pytest.approx(73 / 3)


def test_forgetting_is_against_the_best_moment() -> None:
    assert metrics.forgetting(R).tolist() == [7.0, 0.0, 0.0]
    worse = R.copy()
    worse[2, 0] = 11.0  # better after the second step than right after its own
    assert metrics.forgetting(worse)[0] == 8.0


def test_forgetting_ignores_the_steps_before_the_domain() -> None:
    early = R.copy()
    early[1, 2] = 1.0
    assert metrics.forgetting(early)[2] == 0.0


def test_forward_transfer_is_against_the_dense_model() -> None:
    # domain 1: nothing before it; domain 2: 26 - 20; domain 3: 36 - 30
    assert metrics.forward_transfer(R).tolist() == [0.0, 6.0, 6.0]
    assert metrics.mean_forward_transfer(R) == 6.0  # nothing comes before the first domain
    assert metrics.mean_forward_transfer(R[:2, :1]) is None


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (1, 0), (4,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match="shape"):
        metrics.backward_transfer(np.zeros(shape))


def test_perplexity() -> None:
    assert perplexity(6.0, 3) == pytest.approx(math.exp(2))
    assert perplexity(0.0, 1) == 1.0
    assert perplexity(1e6, 1) == math.inf  # beyond float64, and said so


def test_perplexity_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(InvalidValueError, match="at least one"):
        perplexity(1.0, 0)
    for nats in (math.nan, math.inf):
        with pytest.raises(NumericalError):
            perplexity(nats, 3)


def test_mask_metrics() -> None:
    # pruned before {0, 1, 2, 3}, pruned now {2, 3, 4, 5} of ten weights
    assert metrics.stasis(2, 4) == 0.5
    assert metrics.mask_change(2, 2, 10) == 0.4
    assert metrics.jaccard(2, 6) == pytest.approx(1 / 3)
    assert metrics.stasis(0, 0) is None
    assert metrics.jaccard(0, 0) is None
    with pytest.raises(InvalidValueError):
        metrics.mask_change(0, 0, 0)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_expected_jaccard_is_that_of_independent_masks(sparsity: float) -> None:
    a, b = np.random.default_rng(0).random((2, 400_000)) < sparsity
    found = metrics.jaccard(np.count_nonzero(a & b), np.count_nonzero(a | b))
    assert metrics.expected_jaccard(sparsity) == pytest.approx(found, abs=0.01)
    assert metrics.expected_jaccard(0.0) == 0.0


def test_perplexity_matrix_puts_the_dense_model_first() -> None:
    rows = [
        ("dense", 0, "a", 10.0),
        ("dense", 0, "b", 20.0),
        ("m:restart", 1, "a", 12.0),
        ("m:restart", 2, "b", 22.0),
    ]
    rows += [("m:restart", 1, "b", 26.0), ("other:joint", 1, "a", 99.0), ("m:restart", 1, "gone", 5.0)]
    table = pd.DataFrame(rows, columns=["method", "step", "domain", "perplexity"])
    found = perplexity_matrix(table, "m:restart", ["a", "b"])
    expected = np.array([[10.0, 20.0], [12.0, 26.0], [np.nan, 22.0]])
    assert np.array_equal(found, expected, equal_nan=True)


def test_stasis_is_of_the_whole_model_and_not_a_mean_of_layers() -> None:
    columns = ["method", "step", "weights", "pruned", "stay_pruned", "revived", "newly_pruned"]
    rows = [
        ("m", 1, 100, 50, None, None, None),
        ("m", 1, 10, 5, None, None, None),
        ("m", 2, 100, 50, 45, 5, 5),
        ("m", 2, 10, 5, 0, 5, 5),
        ("other", 2, 100, 50, 0, 50, 50),
    ]
    found = stasis_by_step(pd.DataFrame(rows, columns=columns), "m")
    assert found.to_dict("records") == [
        {"step": 2, "stasis": 45 / 55, "mask_change": 20 / 110, "sparsity": 55 / 110}
    ]
