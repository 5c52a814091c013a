"""The mathematics of every decomposition, over random shapes, singular Gram matrices and all ranks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from copal_core.config import Structure
from copal_core.errors import InvalidValueError, NumericalError
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Factors, Masked, relative_error
from copal_core.methods.linalg import whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.lowrank.plrd import refactorise
from copal_core.statistics.accumulators import GroupStatistics

NAMES = LOWRANK.names()
sizes = some.integers(1, 24)


def layer(
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


def error(weight: Tensor, approximation: Tensor, statistics: GroupStatistics) -> float:
    gram = statistics.mean("input_gram").double()
    return relative_error(weight.double(), approximation.double(), gram)


@given(sizes, sizes, some.integers(1, 60), some.data())
@settings(max_examples=60)
def test_the_whitened_error_is_the_discarded_energy(
    rows: int, columns: int, tokens: int, data: some.DataObject
) -> None:
    weight, statistics = layer(rows, columns, tokens, seed=rows * 31 + columns)
    rank = data.draw(some.integers(1, min(rows, columns)))
    found = LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, rank)
    measured = error(weight, found.weight(), statistics)
    # the closed form, from scratch: singular values of W times a root of the Gram matrix
    gram = statistics.mean("input_gram").double()
    values, vectors = torch.linalg.eigh(gram)
    root = vectors * values.clamp_min(0).sqrt()
    energies = torch.linalg.svdvals(weight.double() @ root).square()
    optimum = float(energies[rank:].sum() / energies.sum())
    slack = 1e-9 + 10 * found.damping  # a damped matrix is another matrix, by as much as is reported
    assert measured == pytest.approx(optimum, rel=1e-4, abs=slack)
    assert found.discarded_energy == pytest.approx(optimum, rel=1e-4, abs=slack)
    assert (found.damping > 0) == ("damping" in found.warnings)
    if tokens >= 2 * columns:
        assert found.damping == 0


@pytest.mark.parametrize("name", NAMES)
@given(rows=sizes, columns=sizes, tokens=some.integers(1, 60), data=some.data())
@settings(max_examples=25)
def test_the_contract_of_every_decomposition(
    name: str, rows: int, columns: int, tokens: int, data: some.DataObject
) -> None:
    weight, statistics = layer(rows, columns, tokens, seed=rows + 100 * columns)
    rank = data.draw(some.integers(1, min(rows, columns)))
    method = LOWRANK.build(name, {})
    found = method.decompose(weight, statistics, rank)
    assert found.left.shape == (rows, rank) and found.right.shape == (rank, columns)
    assert bool(torch.isfinite(found.left).all() and torch.isfinite(found.right).all())
    assert found.parameters == rank * (rows + columns)
    again = method.decompose(weight, statistics, rank)
    assert torch.equal(found.left, again.left) and torch.equal(found.right, again.right)
    if rank == min(rows, columns):
        assert torch.allclose(found.weight(), weight.double(), atol=1e-6)
        assert found.discarded_energy == pytest.approx(0, abs=1e-9)


@given(sizes, sizes, some.data())
@settings(max_examples=40)
def test_no_approximation_of_the_rank_loses_less_than_the_whitened_one(
    rows: int, columns: int, data: some.DataObject
) -> None:
    weight, statistics = layer(rows, columns, 80, seed=rows * columns)
    rank = data.draw(some.integers(1, min(rows, columns)))
    best = error(
        weight,
        LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, rank).weight(),
        statistics,
    )
    for name in NAMES:
        other = LOWRANK.build(name, {}).decompose(weight, statistics, rank)
        assert error(weight, other.weight(), statistics) >= best - 1e-9


@given(sizes, sizes, some.data())
@settings(max_examples=60)
def test_refactorising_equals_the_svd_of_the_product(rows: int, columns: int, data: some.DataObject) -> None:
    inner = data.draw(some.integers(1, 30))
    rank = data.draw(some.integers(1, min(rows, columns, inner)))
    generator = torch.Generator().manual_seed(rows + 7 * columns + 100 * inner)
    left = torch.randn(rows, inner, generator=generator, dtype=torch.float64)
    right = torch.randn(inner, columns, generator=generator, dtype=torch.float64)
    new_left, new_right, discarded = refactorise(left, right, rank)
    u, values, v = torch.linalg.svd(left @ right, full_matrices=False)
    expected = (u[:, :rank] * values[:rank]) @ v[:rank]
    assert torch.allclose(new_left @ new_right, expected, atol=1e-8)
    energies = values.square()
    assert discarded == pytest.approx(float(energies[rank:].sum() / energies.sum()), abs=1e-10)


def test_refactorising_in_a_metric_equals_the_whitened_svd_of_the_product() -> None:
    weight, statistics = layer(12, 18, 90)
    metric = whiten(statistics.mean("input_gram")).lower
    left, right = torch.linalg.qr(weight.double())
    found = refactorise(left, right, 5, metric)
    expected = LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, 5)
    assert torch.allclose(found[0] @ found[1], expected.weight(), atol=1e-9)


def test_a_rank_that_rises_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="only falls"):
        refactorise(torch.ones(4, 2).double(), torch.ones(2, 4).double(), 3)


def test_plrd_without_training_says_so_and_matches_the_whitened_svd() -> None:
    weight, statistics = layer(16, 20, 100)
    found = LOWRANK.build("plrd", {"tokens": 0.0}).decompose(weight, statistics, 6)
    assert "training-free" in found.warnings
    assert "training-free" not in LOWRANK.build("plrd", {}).decompose(weight, statistics, 6).warnings
    best = LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, 6)
    assert torch.allclose(found.weight(), best.weight(), atol=1e-8)  # truncating twice in one metric


def test_basel_keeps_the_bases_that_carry_most() -> None:
    weight, statistics = layer(10, 14, 80)
    found = LOWRANK.build("basel", {}).decompose(weight, statistics, 4)
    assert found.discarded_energy == pytest.approx(error(weight, found.weight(), statistics))
    plain = LOWRANK.build("svd", {}).decompose(weight, statistics, 4)
    assert error(weight, found.weight(), statistics) <= error(weight, plain.weight(), statistics) + 1e-12


def test_svd_needs_no_text() -> None:
    weight, _ = layer(9, 7, 5)
    assert LOWRANK.build("svd", {}).decompose(weight, GroupStatistics(), 3).rank == 3


@pytest.mark.parametrize("rank", [0, 8, -1])
@pytest.mark.parametrize("name", NAMES)
def test_a_rank_that_does_not_fit_is_refused(name: str, rank: int) -> None:
    weight, statistics = layer(9, 7, 40)
    with pytest.raises(InvalidValueError, match="use 1 to 7"):
        LOWRANK.build(name, {}).decompose(weight, statistics, rank)


def test_a_gram_matrix_that_is_not_finite_is_refused() -> None:
    weight, statistics = layer(4, 4, 20)
    statistics.totals["input_gram"][0, 0] = torch.inf
    with pytest.raises(NumericalError, match="not finite"):
        LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, 2)


def test_dead_inputs_are_damped_and_reported() -> None:
    weight, statistics = layer(6, 10, 50, dead=3)
    found = LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, 3)
    assert 0 < found.damping < 1e-6
    assert "singular" in found.warnings["damping"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("svd", {"keep": 1.5}, "use 0 < keep <= 1"),
        ("plrd", {"members": 0.5}, "number of sizes"),
        ("plrd", {"tokens": -1.0}, "training-free"),
        ("plrd", {"metric": "other"}, "whitened or plain"),
        ("basel", {"added": 1.0}, "0 <= added < 1"),
        ("basel", {"rounds": 0.0}, "1 or more"),
        ("hybrid", {"mask": "none"}, "not known"),
        ("svd", {"rank": 3.0}, "no option"),
        ("svd", {"keep": "much"}, "a number"),
    ],
)
def test_a_wrong_option_is_refused(name: str, options: dict, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        LOWRANK.build(name, options)


def test_the_hybrid_takes_the_better_of_the_two() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(24, 3, generator=generator) @ torch.randn(3, 24, generator=generator)
    sparse = torch.randn(24, 24, generator=generator) * (torch.rand(24, 24, generator=generator) < 0.3)
    _, statistics = layer(24, 24, 200)
    found = LOWRANK.build("hybrid", {}).decompose_group(
        {"low": low, "sparse": sparse}, statistics, Structure()
    )
    assert isinstance(found["low"].result, Factors)
    assert isinstance(found["sparse"].result, Masked)
    for choice in found.values():
        assert choice.output_error <= choice.alternative_error


@pytest.mark.parametrize("text", ["2:4", "4:8"])
def test_the_hybrids_pattern_is_counted_as_it_is_stored(text: str) -> None:
    weight, statistics = layer(24, 24, 200)
    structure = Structure.parse(text)
    found = LOWRANK.build("hybrid", {}).decompose_group({"a": weight}, statistics, structure)["a"].result
    assert isinstance(found, Masked)
    assert found.bytes == stored_size.pattern_bytes(24, 24, structure.keep, structure.group_size)
    assert found.bytes == stored_size.structure_share(structure) * stored_size.dense_bytes(24, 24)


@pytest.mark.parametrize("name", ["svd", "whitened-svd", "hybrid", "basel", "plrd"])
def test_twins_are_treated_as_each_alone(name: str) -> None:
    first, statistics = layer(12, 16, 90)
    second = layer(8, 16, 90, seed=5)[0]
    both = torch.cat([first, second])
    statistics.totals["absolute_coupling"] = both.abs()
    together = LOWRANK.build(name, {}).decompose_group({"a": first, "b": second}, statistics, Structure())
    alone = LOWRANK.build(name, {}).decompose_group({"b": second}, statistics, Structure())
    one, other = together["b"].result, alone["b"].result
    if isinstance(one, Factors) and isinstance(other, Factors):
        assert torch.allclose(one.weight(), other.weight())
    else:
        assert isinstance(one, Masked) and isinstance(other, Masked) and torch.equal(one.kept, other.kept)


def test_sixteen_bits_change_little() -> None:
    weight, statistics = layer(20, 30, 100)
    found = LOWRANK.build("whitened-svd", {}).decompose(weight * 1e-3, statistics, 8)
    stored = found.in_half()
    assert stored.left.dtype == torch.float16
    difference = (stored.left.float() @ stored.right.float() - found.weight().float()).norm()
    assert difference < 2e-3 * found.weight().norm()


@pytest.mark.parametrize(("rows", "columns"), [(96, 130), (130, 96), (70, 70)])
@pytest.mark.parametrize("rank", [1, 20, 65])
def test_larger_layers_are_as_exact(rows: int, columns: int, rank: int) -> None:
    weight, statistics = layer(rows, columns, 400)
    found = LOWRANK.build("whitened-svd", {}).decompose(weight, statistics, rank)
    lower = torch.linalg.cholesky(statistics.mean("input_gram").double())
    energies = torch.linalg.svdvals(weight.double() @ lower).square()
    optimum = float(energies[rank:].sum() / energies.sum())
    assert found.discarded_energy == pytest.approx(optimum, rel=1e-4)
    assert error(weight, found.weight(), statistics) == pytest.approx(optimum, rel=1e-4)
