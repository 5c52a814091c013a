"""Every criterion with every strategy, structure and propagation, through the real loop on a random model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.masks import removed_count
from copal_core.methods.strategies import STRATEGIES
from copal_core.store.run_store import RunStore

STRUCTURES = ("unstructured row", "unstructured layer", "2:4", "4:8")
PROPAGATIONS = ("pruned", "dense")
RUNS = [
    pytest.param(*pair, id="-".join(pair).replace(" ", "-")) for pair in product(STRUCTURES, PROPAGATIONS)
]
METHODS = [f"{criterion}:{strategy}" for criterion, strategy in product(CRITERIA.names(), STRATEGIES.names())]
Finished = Callable[[str, str], RunStore]


def masks(store: RunStore, method: str, step: int) -> list[dict[str, np.ndarray]]:
    return [store.masks(method, step, block) for block in range(2)]


def same_masks(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    return all(
        np.array_equal(a[name], b[name])
        for a, b in zip(one, other, strict=True)
        for name in a.keys() | b.keys()
    )


@pytest.mark.parametrize(("structure", "propagate"), RUNS)
@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_removes_exactly_what_was_asked(
        self, finished: Finished, structure: str, propagate: str, method: str
    ) -> None:
        store = finished(structure, propagate)
        for step in (1, 2, 3):
            for block in masks(store, method, step):
                assert len(block) == 7
                for kept in block.values():
                    assert_exact(kept, structure)

    def test_measures_every_domain_after_every_step(
        self, finished: Finished, structure: str, propagate: str, method: str
    ) -> None:
        store = finished(structure, propagate)
        R = perplexity_matrix(store.perplexity(), method, store.domains)
        assert R.shape == (4, 3)
        assert np.isfinite(R).all() and (R > 1).all()
        assert (R[1] != R[0]).all()  # pruning changed the model

    def test_records_every_layer(
        self, finished: Finished, structure: str, propagate: str, method: str
    ) -> None:
        store = finished(structure, propagate)
        table = store.layers()
        table = table[table["method"] == method]
        assert len(table) == 3 * 2 * 7
        assert (table["pruned"] * 2 == table["weights"]).all()
        later = table[table["step"] > 1]
        assert (later["stay_pruned"] + later["newly_pruned"] == later["pruned"]).all()
        assert (later["revived"] == later["newly_pruned"]).all()  # the same number at every step
        first = table[table["step"] == 1]
        assert first[["stay_pruned", "revived", "newly_pruned"]].isna().all(axis=None)
        for row in table[table["step"] == 2].itertuples():
            before, after = (~store.masks(method, step, row.block)[row.projection] for step in (1, 2))
            assert row.stay_pruned == np.count_nonzero(before & after)

    def test_draws_every_layer(self, finished: Finished, structure: str, propagate: str, method: str) -> None:
        store = finished(structure, propagate)
        for projection in ("q_proj", "k_proj", "o_proj", "down_proj"):
            tiles = store.tiles(method, 3, 1, projection)
            kept = store.masks(method, 3, 1)[projection]
            assert tiles["score"].shape == tiles["kept"].shape == (8, 8)
            assert (tiles["score"] >= 0).all() and tiles["score"].max() > 0
            assert tiles["kept"].mean() == pytest.approx(kept.mean(), abs=1e-3)
            assert tiles["histogram"].sum(axis=1).tolist() == [kept.sum(), (~kept).sum()]
            assert (np.diff(tiles["edges"]) > 0).all()
            assert ("head_kept" in tiles) == (projection != "down_proj")
        assert store.tiles(method, 3, 1, "k_proj")["head_score"].shape == (2,)
        assert store.tiles(method, 3, 1, "o_proj")["head_score"].shape == (4,)


def assert_exact(kept: np.ndarray, structure: str) -> None:
    if structure == "unstructured layer":
        assert (~kept).sum() == removed_count(kept.size, 0.5)
    elif structure == "unstructured row":
        assert set((~kept).sum(axis=1)) == {removed_count(kept.shape[1], 0.5)}
    else:
        keep, size = map(int, structure.split(":"))
        assert set(kept.reshape(kept.shape[0], -1, size).sum(axis=2).ravel()) == {keep}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("criterion", CRITERIA.names())
class TestStrategies:
    def test_accumulating_equals_joint_under_dense_propagation(
        self, finished: Finished, criterion: str, structure: str
    ) -> None:
        store = finished(structure, "dense")
        for step in (1, 2, 3):
            accumulated = masks(store, f"{criterion}:accumulate", step)
            assert same_masks(accumulated, masks(store, f"{criterion}:joint", step))
        R = [
            perplexity_matrix(store.perplexity(), f"{criterion}:{s}", store.domains)
            for s in ("accumulate", "joint")
        ]
        assert np.array_equal(*R)

    def test_all_strategies_agree_on_the_first_domain(
        self, finished: Finished, criterion: str, structure: str
    ) -> None:
        store = finished(structure, "pruned")
        reference = masks(store, f"{criterion}:restart", 1)
        for strategy in STRATEGIES.names():
            assert same_masks(masks(store, f"{criterion}:{strategy}", 1), reference)

    def test_restart_and_accumulate_part_on_the_second(
        self, finished: Finished, criterion: str, structure: str
    ) -> None:
        store = finished(structure, "pruned")
        restart, accumulate = (masks(store, f"{criterion}:{s}", 2) for s in ("restart", "accumulate"))
        needs_text = bool(CRITERIA.get(criterion)().statistics())  # magnitude does not
        assert same_masks(restart, accumulate) != needs_text


@pytest.mark.parametrize(("structure", "propagate"), RUNS)
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "copal"])
def test_a_sequential_mask_stands_still(
    finished: Finished, criterion: str, structure: str, propagate: str
) -> None:
    store = finished(structure, propagate)
    result = next(m for m in result_of(store)["methods"] if m["method"] == f"{criterion}:sequential")
    assert result["stasis"] == [1.0, 1.0]
    assert result["mask_change"] == [0.0, 0.0]


def test_propagation_matters_for_all_but_the_first_block(finished: Finished) -> None:
    pruned, dense = (finished("unstructured row", p) for p in PROPAGATIONS)
    first, second = zip(masks(pruned, "wanda:restart", 1), masks(dense, "wanda:restart", 1), strict=True)
    for name in ("q_proj", "o_proj", "down_proj"):
        assert np.array_equal(first[0][name], first[1][name])
    assert not np.array_equal(second[0]["q_proj"], second[1]["q_proj"])


def test_overlaps_are_counted_against_every_earlier_method(finished: Finished) -> None:
    store = finished("2:4", "pruned")
    table = store.overlaps()
    assert len(table) == 3 * 14 * len(METHODS) * (len(METHODS) - 1) // 2
    row = table.sample(1, random_state=0).iloc[0]
    a, b = (
        ~store.masks(row[m], row["step"], row["block"])[row["projection"]] for m in ("method_a", "method_b")
    )
    assert row["both_pruned"] == np.count_nonzero(a & b)
    assert row["either_pruned"] == np.count_nonzero(a | b)


def test_weights_and_memory_are_stored_where_they_are_needed(finished: Finished) -> None:
    """Changed weights by criteria that change them, sums by strategies that remember them."""
    store = finished("unstructured row", "pruned")
    for method in METHODS:
        criterion, strategy = (
            registry.get(name)
            for registry, name in zip((CRITERIA, STRATEGIES), method.split(":"), strict=True)
        )
        assert store.has_arrays("weights", method, 2, 0) == criterion.updates_weights
        remembers = strategy.remembers and bool(criterion().statistics())
        assert store.has_arrays("memory", method, 2, 0) == remembers
    assert store.has_arrays("weights", "sparsegpt:restart", 2, 0)
    assert store.has_arrays("memory", "copal:accumulate", 2, 0)
