"""Curves without a forward pass, against approximations that are really made and measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from copal_core.analysis.layers.compared import RANKED, masks
from copal_core.analysis.layers.curves import LayerCurves, layer_curves
from copal_core.config import Structure
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.criterion import build_criterion
from copal_core.methods.decomposition import relative_error
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.surgeon import surgeon
from copal_core.statistics.accumulators import GroupStatistics

SHAPES = [(24, 36), (36, 24), (28, 28)]

Made = tuple[torch.Tensor, dict[str, GroupStatistics], LayerCurves]


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def made(request: pytest.FixtureRequest, layer: Callable[..., tuple]) -> Made:
    """A layer with two domains, and its curves fitted to the first."""
    weight, first = layer(*request.param, 120, seed=1)
    second = layer(*request.param, 90, seed=2)[1]
    statistics = {"code": first, "drama": second}
    return weight, statistics, layer_curves(weight, statistics, fit=["code"])


@pytest.mark.parametrize("share", [0.15, 0.4, 0.5625, 0.8, 0.97])
@pytest.mark.parametrize("method", RANKED)
def test_low_rank_readings_equal_the_decomposition_measured(made: Made, method: str, share: float) -> None:
    weight, statistics, curves = made
    rank = stored_size.rank_at(*weight.shape, share)
    for reading in curves.readings(share):
        if reading.method != method:
            continue
        assert reading.amount == rank and reading.parameters == rank * sum(weight.shape)
        gram = statistics[reading.domain].mean("input_gram").double()
        found = LOWRANK.build(method, {}).decompose(weight, statistics["code"], rank)
        assert reading.error == pytest.approx(
            relative_error(weight.double(), found.weight(), gram), rel=1e-4, abs=1e-9
        )


@pytest.mark.parametrize("method", masks())
def test_mask_curves_pass_through_masks_measured(made: Made, method: str) -> None:
    weight, statistics, curves = made
    for curve in curves.curves:
        if curve.method != method:
            continue
        gram = statistics[curve.domain].mean("input_gram")
        for sparsity, error in zip(curve.amount, curve.error, strict=True):
            pruned = build_criterion(method, {}).prune(
                weight, statistics["code"], Structure(sparsity=sparsity), [len(weight)]
            )
            assert error == pytest.approx(relative_error(weight, pruned.weight, gram), rel=2e-3, abs=1e-7)


@pytest.mark.parametrize("method", masks())
def test_the_two_of_four_points_are_those_of_masks_measured(made: Made, method: str) -> None:
    weight, statistics, curves = made
    pruned = build_criterion(method, {}).prune(
        weight, statistics["code"], Structure.parse("2:4"), [len(weight)]
    )
    points = [curve for curve in curves.curves if curve.method == f"{method} 2:4"]
    assert [curve.domain for curve in points] == list(statistics)
    for curve in points:
        gram = statistics[curve.domain].mean("input_gram")
        assert curve.error[0] == pytest.approx(relative_error(weight, pruned.weight, gram), rel=5e-3)


def test_errors_fall_with_the_bytes(made: Made) -> None:
    ranked = [curve for curve in made[2].curves if curve.kind == "rank"]
    assert {curve.method for curve in ranked} == set(RANKED)
    for curve in ranked:
        assert (np.diff(curve.error) <= 1e-12).all()
        assert curve.error[0] == pytest.approx(1) and curve.error[-1] == 0


def test_the_whole_budget_range_is_drawn(made: Made) -> None:
    table = made[2].table(points=51)
    methods = {row["method"] for row in table}
    assert methods >= {*masks(), *RANKED, "wanda 2:4"}
    for row in table:
        assert 0 <= row["error"] <= 2 and 0 < row["share"] <= 1
    assert {row["error"] for row in table if row["share"] == 1 and row["kind"] == "rank"} == {0}


def test_everything_kept_loses_nothing(made: Made) -> None:
    assert {reading.error for reading in made[2].readings(1.0) if reading.kind != "point"} == {0}


def test_a_reading_says_it_in_words(made: Made) -> None:
    words = {reading.method: reading.in_words() for reading in made[2].readings(0.6)}
    assert words["wanda"].startswith("the wanda mask loses") and words["svd"].startswith("rank ")


@pytest.mark.parametrize("share", [-0.1, 1.2])
def test_a_share_that_is_none_is_refused(made: Made, share: float) -> None:
    with pytest.raises(InvalidValueError):
        made[2].readings(share) if share < 0 else stored_size.rank_at(4, 4, share)


def test_an_unknown_domain_or_mask_is_refused(made: Made) -> None:
    weight, statistics, _ = made
    with pytest.raises(InvalidValueError, match="no statistics"):
        layer_curves(weight, statistics, fit=["none"])
    with pytest.raises(InvalidValueError, match="have no curve"):
        layer_curves(weight, statistics, masks=["none"])


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("columns", [48, 300])
def test_the_surgeon_equals_sparsegpt(layer: Callable[..., tuple], columns: int, sparsity: float) -> None:
    weight, statistics = layer(16, columns, 4 * columns)
    pruned = build_criterion("sparsegpt", {}).prune(weight, statistics, Structure(sparsity=sparsity), [16])
    gram = statistics.mean("input_gram")
    change = surgeon(gram).changes(weight, [round(columns * sparsity)])[0]
    assert int((weight - change).abs().lt(1e-6).sum()) == pytest.approx(int((~pruned.kept).sum()), abs=2)
    expected = relative_error(weight, pruned.weight, gram)
    assert relative_error(weight, weight - change, gram) == pytest.approx(expected, rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("columns", [48, 300])
def test_the_surgeon_keeps_two_of_four_as_sparsegpt_does(layer: Callable[..., tuple], columns: int) -> None:
    weight, statistics = layer(16, columns, 4 * columns)
    structure = Structure(kind="n:m", keep=2, group_size=4)
    pruned = build_criterion("sparsegpt", {}).prune(weight, statistics, structure, [16])
    gram = statistics.mean("input_gram")
    left = weight - surgeon(gram).changes(weight, [columns // 2], group=4)[0]
    assert (left.abs().lt(1e-6).reshape(16, -1, 4).sum(dim=-1) == 2).all()
    expected = relative_error(weight, pruned.weight, gram)
    assert relative_error(weight, left, gram) == pytest.approx(expected, rel=1e-2)


def test_a_sample_of_rows_stands_for_a_large_layer(layer: Callable[..., tuple]) -> None:
    weight, statistics = layer(256, 64, 400)
    whole = layer_curves(weight, {"code": statistics}, flops=1e12)
    part = layer_curves(weight, {"code": statistics}, flops=2e7)
    assert part.sampled and not whole.sampled and part.rows < 128
    found, expected = ({one.method: one.error for one in made.readings(0.6)} for made in (part, whole))
    assert expected and found == pytest.approx(expected, rel=0.1)


def test_interpolation_is_within_one_percent_between_the_points(layer: Callable[..., tuple]) -> None:
    weight, statistics = layer(64, 96, 600)
    curves = layer_curves(weight, {"code": statistics})
    gram = statistics.mean("input_gram")
    for share in (0.35, 0.52, 0.68, 0.83):
        reading = next(r for r in curves.readings(share) if r.method == "wanda")
        structure = Structure(sparsity=stored_size.sparsity_at(share))
        pruned = build_criterion("wanda", {}).prune(weight, statistics, structure, [64])
        assert reading.error == pytest.approx(relative_error(weight, pruned.weight, gram), rel=0.04)
