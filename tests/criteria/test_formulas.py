"""Wanda and SparseGPT against plain float64 transcriptions of their papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from copal_core.config import Structure
from copal_core.errors import InvalidValueError, NumericalError
from copal_core.methods.criteria.sparsegpt import inverse_factor
from copal_core.methods.criterion import Criterion, Pruned, build_criterion
from copal_core.statistics.accumulators import GroupStatistics, InputGram, InputSquareSum

Array = NDArray[np.float64]
STRUCTURES = [
    Structure(sparsity=0.5),
    Structure(sparsity=0.3),
    Structure(sparsity=0.6, group="layer"),
    Structure.parse("2:4"),
    Structure.parse("4:8"),
    Structure.parse("1:4"),
]


@pytest.fixture(params=[(24, 40), (16, 160)], ids=["one-block", "two-blocks"])
def layer(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """W (out, in) and X (tokens, in) with correlated inputs of very different size."""
    rows, columns = request.param
    generator = torch.Generator().manual_seed(rows)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    x = torch.randn(6 * columns, columns, generator=generator) @ (mixing + torch.eye(columns))
    x *= torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]
    return torch.randn(rows, columns, generator=generator), x


def statistics_of(x: Tensor) -> GroupStatistics:
    totals = {}
    for statistic in (InputSquareSum(), InputGram()):
        total = statistic.zeros(1, x.shape[1], x.device)
        statistic.update(total, x, [], None)
        totals[statistic.name] = total
    return GroupStatistics(x.shape[0], totals)


def prune(criterion: Criterion, w: Tensor, x: Tensor, structure: Structure) -> Pruned:
    return criterion.prune(w, statistics_of(x), structure, [w.shape[0]])


def lowest(scores: Array, structure: Structure, already: int = 0) -> NDArray[np.bool_]:
    """True where a published method would remove: the lowest scores of each comparison group.

    already: columns to the left that have been decided, for shares that add up over blocks.
    """
    rows, columns = scores.shape
    if structure.kind == "n:m":
        groups = scores.reshape(-1, structure.group_size)
        count = structure.group_size - structure.keep
    elif structure.group == "row":
        groups = scores
        count = round((already + columns) * structure.sparsity) - round(already * structure.sparsity)
    else:
        groups = scores.reshape(1, -1)
        count = round((already + columns) * rows * structure.sparsity) - round(
            already * rows * structure.sparsity
        )
    gone = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(gone, np.argsort(groups, axis=1, kind="stable")[:, :count], True, axis=1)
    return gone.reshape(rows, columns)


def published_wanda(w: Array, x: Array, structure: Structure) -> tuple[Array, NDArray[np.bool_]]:
    """S_ij = |W_ij| · ‖X_j‖₂, the lowest of each comparison group set to zero."""
    scores = np.abs(w) * np.linalg.norm(x, axis=0)
    gone = lowest(scores, structure)
    return np.where(gone, 0.0, w), ~gone


def published_sparsegpt(w: Array, x: Array, structure: Structure) -> tuple[Array, NDArray[np.bool_]]:
    """The paper's algorithm 1, one column at a time, every update applied at once to all columns right of it."""
    w, columns = w.copy(), w.shape[1]
    hessian = x.T @ x
    hessian += 0.01 * np.mean(np.diag(hessian)) * np.eye(columns)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T  # H⁻¹ = Uᵀ U
    width = structure.group_size if structure.kind == "n:m" else 128
    gone = np.zeros(w.shape, dtype=bool)
    for j in range(columns):
        if j % width == 0:
            block = slice(j, j + width)
            scores = w[:, block] ** 2 / np.diag(upper)[block] ** 2
            gone[:, block] = lowest(scores, structure, already=j)
        error = np.where(gone[:, j], w[:, j], 0.0) / upper[j, j]
        w[:, j:] -= np.outer(error, upper[j, j:])
    return np.where(gone, 0.0, w), ~gone


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_wanda_is_the_published_formula(layer: tuple[Tensor, Tensor], structure: Structure) -> None:
    w, x = layer
    weights, kept = published_wanda(w.double().numpy(), x.double().numpy(), structure)
    pruned = prune(build_criterion("wanda", {}), w, x, structure)
    assert np.array_equal(pruned.kept.numpy(), kept)
    np.testing.assert_array_equal(pruned.weight.numpy(), weights.astype(np.float32))


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_sparsegpt_is_the_published_algorithm(layer: tuple[Tensor, Tensor], structure: Structure) -> None:
    w, x = layer
    weights, kept = published_sparsegpt(w.double().numpy(), x.double().numpy(), structure)
    pruned = prune(build_criterion("sparsegpt", {}), w, x, structure)
    assert np.array_equal(pruned.kept.numpy(), kept)
    np.testing.assert_allclose(pruned.weight.numpy(), weights, rtol=2e-3, atol=2e-4)
    assert not pruned.warnings


def test_sparsegpt_beats_the_mask_alone(layer: tuple[Tensor, Tensor]) -> None:
    """The weight update is what it is for: less output error than the same mask without it."""
    w, x = layer
    pruned = prune(build_criterion("sparsegpt", {}), w, x, Structure(sparsity=0.5))
    gram = x.T @ x

    def error(found: Tensor) -> float:
        return float(torch.trace((w - found) @ gram @ (w - found).T))

    assert error(pruned.weight) < 0.8 * error(w * pruned.kept)
    assert ((pruned.weight != 0) <= pruned.kept).all()


def test_dead_inputs_go_first_and_are_reported(layer: tuple[Tensor, Tensor]) -> None:
    w, x = layer[0], layer[1].clone()
    dead = [3, 17, 29]
    x[:, dead] = 0
    pruned = prune(build_criterion("sparsegpt", {}), w, x, Structure(sparsity=0.5))
    assert not pruned.kept[:, dead].any()
    assert torch.isfinite(pruned.weight).all()
    assert pruned.warnings["dead-inputs"].startswith("3 inputs")


def test_a_singular_gram_matrix_raises_the_damping(layer: tuple[Tensor, Tensor]) -> None:
    w, x = layer[0], layer[1][:1]  # one token: rank one
    pruned = prune(build_criterion("sparsegpt", {"damping": 0.0}), w, x, Structure(sparsity=0.5))
    assert "raised from 0 to" in pruned.warnings["damping-raised"]
    assert torch.isfinite(pruned.weight).all()
    assert (~pruned.kept).sum(dim=1).unique().tolist() == [w.shape[1] // 2]


def test_a_gram_matrix_beyond_repair_is_refused() -> None:
    with pytest.raises(NumericalError, match="not finite"):
        inverse_factor(torch.full((4, 4), torch.inf), 0.01)
    with pytest.raises(NumericalError, match="singular"):
        inverse_factor(
            torch.eye(4) - 5 * torch.ones(4, 4).fill_diagonal_(0), 0.01
        )  # not a Gram matrix at all


def test_the_factor_is_that_of_the_inverse() -> None:
    x = torch.randn(60, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = (x.T @ x).float()
    upper, dead, warnings = inverse_factor(gram, 0.0)
    assert not dead.any() and not warnings
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper.T @ upper @ gram, torch.eye(10), rtol=1e-4, atol=1e-4)


def test_copal_scores_weights_by_their_coupling() -> None:
    w = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    coupling = torch.tensor([[8.0, 4.0], [2.0, 6.0]])
    scores = build_criterion("copal", {}).score(w, GroupStatistics(2, {"absolute_coupling": coupling}))
    assert scores.tolist() == [[4.0, 4.0], [0.0, 9.0]]


def test_magnitude_needs_no_statistics() -> None:
    criterion = build_criterion("magnitude", {})
    assert criterion.statistics() == ()
    assert criterion.score(torch.tensor([[-2.0, 1.0]]), GroupStatistics()).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("wanda", {"epsilon": 0.1}, "has no option 'epsilon'; it takes none"),
        ("copal", {"damping": 0.1}, "it takes estimator, epsilon"),
        ("copal", {"estimator": "guess"}, "closed-form, finite-difference, autograd"),
        ("copal", {"estimator": 2.0}, "is a word, got '2.0'"),
        ("copal", {"epsilon": "small"}, "is a number, got 'small'"),
        ("copal", {"epsilon": True}, "is a number"),
        ("copal", {"epsilon": 0.0}, "0 < epsilon <= 1"),
        ("copal", {"epsilon": float("nan")}, "is a number"),
        ("sparsegpt", {"damping": 1.0}, "0 <= damping < 1"),
        ("sparsegpt", {"block": 0.5}, "number of columns"),
        ("sparsegpt", {"block": float("inf")}, "is a number"),
        ("sparsegtp", {}, "known: copal, magnitude, sparsegpt, wanda"),
    ],
)
def test_unknown_names_and_options_are_refused(name: str, options: dict, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        build_criterion(name, options)
