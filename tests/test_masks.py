"""Masks keep exactly what was asked, whatever the scores are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from copal_core.config import Structure
from copal_core.errors import InvalidValueError, NumericalError
from copal_core.methods import masks
from copal_core.methods.masks import removed_count, select

# few distinct values: ties, zeros and whole constant rows are the rule
VALUES = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0**-100, 2.5, 2.0**127]) | st.floats(
    0, 2.0**127, width=32, allow_subnormal=False
)


def matrices(rows: st.SearchStrategy[int], columns: st.SearchStrategy[int]) -> st.SearchStrategy[Tensor]:
    shapes = st.tuples(rows, columns)
    return hnp.arrays(np.float32, shapes, elements=VALUES).map(torch.from_numpy)


SCORES = matrices(st.integers(1, 6), st.integers(1, 24))
SPARSITIES = st.floats(0, 0.999)


def reference(scores: np.ndarray, remove: int) -> np.ndarray:
    """Kept of one comparison group: the `remove` smallest go, equal ones from the lowest index on."""
    kept = np.ones(scores.size, dtype=bool)
    kept[np.argsort(scores.ravel(), kind="stable")[:remove]] = False
    return kept.reshape(scores.shape)


@given(SCORES, SPARSITIES)
def test_rows_lose_exactly_their_share(scores: Tensor, sparsity: float) -> None:
    kept = select(scores, Structure(sparsity=sparsity)).kept.numpy()
    count = removed_count(scores.shape[1], sparsity)
    expected = np.stack([reference(row, count) for row in scores.numpy()])
    assert np.array_equal(kept, expected)
    assert ((~kept).sum(axis=1) == count).all()


@given(SCORES, SPARSITIES, st.data())
def test_stacked_layers_each_lose_exactly_their_share(
    scores: Tensor, sparsity: float, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, scores.shape[0]))
    sections = [first, scores.shape[0] - first] if first < scores.shape[0] else [first]
    kept = select(scores, Structure(sparsity=sparsity, group="layer"), sections).kept.numpy()
    parts = np.split(scores.numpy(), np.cumsum(sections)[:-1])
    expected = [reference(part, removed_count(part.size, sparsity)) for part in parts]
    assert np.array_equal(kept, np.concatenate(expected))


@settings(max_examples=60)
@given(st.sampled_from([(2, 4), (4, 8), (1, 4), (3, 7), (5, 16), (9, 20), (1, 17)]), st.data())
def test_n_of_m_keeps_the_n_largest_of_each_group(pattern: tuple[int, int], data: st.DataObject) -> None:
    keep, size = pattern
    groups = data.draw(st.integers(1, 3))
    scores = data.draw(matrices(st.integers(1, 4), st.just(groups * size)))
    kept = select(scores, Structure.parse(f"{keep}:{size}")).kept.numpy()
    expected = [reference(group, size - keep) for group in scores.numpy().reshape(-1, size)]
    assert np.array_equal(kept.reshape(-1, size), np.stack(expected))


@given(st.integers(0, 2**31 - 1))
def test_both_rankings_of_n_of_m_agree(seed: int) -> None:
    scores = torch.randint(0, 4, (3, 16), generator=torch.Generator().manual_seed(seed)).float()
    compared = masks._keep_n_of_m(scores, 3, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_COMPARE_UP_TO", 4)
        assert torch.equal(masks._keep_n_of_m(scores, 3, 8), compared)


def test_ties_fall_by_index() -> None:
    kept = select(torch.ones(2, 6), Structure(sparsity=0.5)).kept
    assert kept.tolist() == [[False] * 3 + [True] * 3] * 2
    kept = select(torch.ones(2, 3), Structure(sparsity=0.5, group="layer")).kept
    assert kept.tolist() == [[False] * 3, [True] * 3]
    assert select(torch.ones(1, 8), Structure.parse("2:4")).kept.tolist() == [[False, False, True, True] * 2]


def test_thresholds_are_the_largest_scores_removed() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]])
    assert select(scores, Structure(sparsity=0.5)).thresholds.tolist() == [2.0, 6.0]
    assert select(scores, Structure(sparsity=0.5, group="layer")).thresholds.tolist() == [4.0]
    assert select(scores, Structure(sparsity=0.0)).thresholds.tolist() == [-torch.inf] * 2
    assert select(scores, Structure.parse("2:4")).thresholds is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_scores_that_are_not_finite_are_refused(bad: float, structure: str) -> None:
    scores = torch.ones(4, 8)
    scores[2, 3] = bad
    with pytest.raises(NumericalError, match="1 of 32"):
        select(scores, Structure.parse(structure))


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="this layer has 10"):
        select(torch.ones(2, 10), Structure.parse("2:4"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares with a GPU, and there is none here")
@pytest.mark.parametrize(
    "structure", [Structure(), Structure(group="layer", sparsity=0.3), Structure.parse("2:4")]
)
def test_a_gpu_selects_the_same_mask(structure: Structure) -> None:
    scores = torch.randint(0, 9, (64, 96), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(select(scores.cuda(), structure).kept.cpu(), select(scores, structure).kept)


def test_counts_are_the_nearest_whole_number() -> None:
    assert [removed_count(10, s) for s in (0, 0.04, 0.06, 0.5, 0.99)] == [0, 0, 1, 5, 10]
