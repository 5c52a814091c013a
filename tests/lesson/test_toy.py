"""The lesson's toy layer computes what the product's own criteria, strategies and decompositions compute."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pages.learn.toy
from copal_core.config import Structure
from copal_core.errors import InvalidValueError
from copal_core.methods.criterion import build_criterion
from copal_core.methods.decomposition import relative_error
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.masks import select
from copal_core.methods.strategies import STRATEGIES as REAL_STRATEGIES
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics, InputGram
from pages.learn.toy import rank, tokens
from pages.learn.toy.layer import CRITERIA, best_mask, gather, keep_highest, lost, score
from pages.learn.toy.strategies import STRATEGIES, walk

HALF = Structure(sparsity=0.5, group="row")


def real_statistics(names: str, inputs: np.ndarray, weight: np.ndarray) -> GroupStatistics:
    """What the product gathers of these tokens for criterion `names`."""
    x, w = torch.tensor(inputs, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32)
    found = GroupStatistics(tokens=len(x))
    for statistic in build_criterion(names, {}).statistics():
        total = statistic.zeros(*w.shape, w.device)
        statistic.update(total, x, [x @ w.T], None)
        found.totals[statistic.name] = total
    return found


@pytest.mark.parametrize("criterion", CRITERIA)
@given(
    seed=st.integers(0, 10_000), neurons=st.integers(1, 5), count=st.integers(1, 40), width=st.integers(2, 5)
)
def test_scores_are_the_criteria_s(criterion: str, seed: int, neurons: int, count: int, width: int) -> None:
    random = np.random.default_rng(seed)
    weight, inputs = random.standard_normal((neurons, width)), random.standard_normal((count, width))
    ours = score(criterion, weight, gather(inputs, weight))
    theirs = build_criterion(criterion, {}).score(
        torch.tensor(weight), real_statistics(criterion, inputs, weight)
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-4, atol=1e-6)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_mask_is_the_product_s_ties_included(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    theirs = select(torch.tensor(scores, dtype=torch.float32), HALF).kept.numpy()
    assert (keep_highest(scores, 2) == theirs).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_strategy_walks_as_the_product_s(strategy: str, criterion: str) -> None:
    """The product's strategy and criterion on the same tokens give the same mask at every step."""
    dense = tokens.layer()
    texts = [tokens.text(12, 40, 1), tokens.text(75, 60, 2), tokens.text(40, 50, 3)]
    ours = walk(dense, texts, strategy, criterion)
    real, method = REAL_STRATEGIES.get(strategy)(), build_criterion(criterion, {})
    memory, weight = None, dense
    for number, mine in enumerate(ours, start=1):
        scored = weight if real.starts_from_pruned else dense
        found = [
            BlockStatistics({"g": real_statistics(criterion, texts[d - 1], scored)})
            for d in real.domains(number)
        ]
        combined = real.combine(memory, found)
        memory = combined if real.remembers else None
        pruned = method.prune(torch.tensor(scored), combined.groups["g"], HALF, [len(dense)])
        assert (pruned.kept.numpy() == mine.kept).all()
        weight = pruned.weight.double().numpy()
        np.testing.assert_allclose(weight, mine.pruned, rtol=1e-6)


def test_a_pruned_layer_stands_still_and_a_memory_equals_all_text() -> None:
    dense = tokens.layer()
    texts = [tokens.text(12, 60, 1), 100 * tokens.text(90, 60, 2)]
    first, second = walk(dense, texts, "sequential")
    assert (first.kept == second.kept).all()
    assert (second.scores[~first.kept] == 0).all()
    restarted = walk(dense, texts, "restart")
    assert (restarted[0].kept != restarted[1].kept).any()  # the text does ask for another mask
    texts = [tokens.text(12, 60, 1), tokens.text(75, 60, 2)]
    together, remembered = walk(dense, texts, "joint"), walk(dense, texts, "accumulate")
    np.testing.assert_allclose(together[1].scores, remembered[1].scores)


def test_what_the_lesson_says_of_the_strategies_holds_on_its_texts() -> None:
    """Restart forgets text A; accumulate loses less on the text that is worse off than either."""
    dense, texts = tokens.layer(), [tokens.text(12, 150, 1), tokens.text(75, 150, 2)]
    grams = [gather(text, dense).gram for text in texts]
    losses = {
        name: [lost(dense, walk(dense, texts, name)[-1].pruned, gram) for gram in grams]
        for name in STRATEGIES
    }
    assert losses["restart"][0] > 3 * losses["sequential"][0]
    assert max(losses["accumulate"]) < 0.5 * min(max(losses["restart"]), max(losses["sequential"]))
    weight = dense * best_mask(dense, grams[0])
    assert lost(dense, weight, grams[0]) < lost(dense, dense * keep_highest(np.abs(dense)), grams[0])


def test_errors_and_the_best_line_are_the_decompositions() -> None:
    dense, inputs = tokens.fan(100), tokens.text(30, 50, 5)
    sums = gather(inputs, dense)
    statistics = GroupStatistics(50, {"input_gram": torch.zeros(2, 2)})
    x = torch.tensor(inputs, dtype=torch.float32)
    InputGram().update(statistics.totals["input_gram"], x, [], None)
    factors = LOWRANK.build("whitened-svd", {}).decompose(torch.tensor(dense), statistics, 1)
    theirs = (factors.left @ factors.right).numpy()
    best = rank.whitened(dense, sums.gram)
    np.testing.assert_allclose(best, theirs, atol=1e-5)
    error = relative_error(torch.tensor(dense), torch.tensor(best), torch.tensor(sums.gram))
    assert lost(dense, best, sums.gram) == pytest.approx(error, rel=1e-9)
    angles = np.arange(0.0, 180.0, 0.5)
    lines = (rank.on_line(dense, sums.gram, angle) for angle in angles)
    every = np.array([lost(dense, line, sums.gram) for line in lines])
    assert every.min() == pytest.approx(error, rel=1e-2)
    assert every.min() >= error - 1e-12
    found = float(angles[every.argmin()])
    assert rank.direction(best) == pytest.approx(found, abs=0.5)


def test_texts_repeat_and_more_tokens_agree_more_often() -> None:
    whole = tokens.text(12, tokens.WHOLE_TEXT, 1)
    assert (whole == tokens.text(12, tokens.WHOLE_TEXT, 1)).all()
    shares = [tokens.agreement(whole, tokens.layer(), count) for count in (4, 32, 256)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9
    assert len(tokens.sample(whole, 7, 3)) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tokens.text(0, 0),
        lambda: tokens.sample(np.ones((3, 2)), 4, 0),
        lambda: gather(np.ones((0, 2)), np.ones((1, 2))),
        lambda: gather(np.ones((3, 3)), np.ones((1, 2))),
        lambda: score("wander", np.ones((1, 2)), gather(np.ones((3, 2)), np.ones((1, 2)))),
        lambda: keep_highest(np.ones((1, 2)), 3),
        lambda: walk(np.ones((1, 2)), [np.ones((3, 2))], "forget"),
    ],
)
def test_wrong_values_are_refused_in_a_sentence(wrong: object) -> None:
    with pytest.raises(InvalidValueError):
        wrong()  # type: ignore[operator]


def test_the_lesson_needs_numpy_only() -> None:
    for path in Path(pages.learn.toy.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                package = (module or "").split(".")[0]
                assert (module or "").startswith("pages.learn.toy.") or package in (
                    "__future__", "collections", "dataclasses", "functools", "itertools", "numpy", "copal_core",
                )  # fmt: skip
