"""Explanations with numbers, computed from the toy layer or the recorded run when they are shown."""

from __future__ import annotations

import numpy as np

from copal_core.figures.numbers import compact, percent
from copal_core.methods import stored_size
from pages.learn import example, recorded_run
from pages.learn.toy import rank as rank_one
from pages.learn.toy.layer import best_mask, gather, keep_highest, lost, score
from pages.learn.toy.tokens import fan
from pages.shared.text import plain


def by_hand() -> str:
    """Compare magnitude with the best mask on text A."""
    weight, sums = example.LAYER, gather(example.text_a(), example.LAYER)
    largest = keep_highest(score("magnitude", weight, sums))
    by_size = percent(lost(weight, weight * largest, sums.gram), 0)
    best = percent(lost(weight, weight * best_mask(weight, sums.gram), sums.gram), 0)
    return (
        f"Keeping the larger weights loses {by_size} of the output; the best mask, {best}. Text A hardly uses "
        "input 2, so even a large weight on it has little effect. Only the text can tell."
    )


def memory() -> str:
    """State the size of accumulate's memory, in the toy layer and in the recorded run."""
    count = example.LAYER.size
    answer = f"{count} numbers here, one for each weight, regardless of the length of the texts."
    return answer + recorded_run.memory_size()


def rank() -> str:
    """Compare rank 1 with a mask, on similar neurons and on different ones."""
    parts = []
    for spread in (0, 90):
        weight = fan(spread)
        sums = gather(np.vstack([example.text_a(), example.text_b(75)]), weight)
        on_line = percent(lost(weight, rank_one.whitened(weight, sums.gram), sums.gram), 0)
        masked = percent(lost(weight, weight * keep_highest(score("copal", weight, sums)), sums.gram), 0)
        parts.append(f"spread over {spread}°, rank 1 loses {on_line} and the mask {masked}")
    shares = percent(stored_size.rank_share(*weight.shape, 1), 0), percent(stored_size.mask_share(0.5), 0)
    return (
        f"{parts[0].capitalize()}; {parts[1]}. Note the bytes: rank 1 stores {shares[0]} of this layer, the mask "
        f"{shares[1]}."
    )


def real_run() -> str:
    """Compare the recorded run's methods without forgetting with its best method, on the last domain."""
    outcome = recorded_run.last_domain()
    if outcome is None:
        return "A mask that never moves forgets nothing and learns nothing: compare the last domain."
    domain, still, best = outcome
    listed = ", ".join(f"{plain(name)} {compact(value)}" for name, value in still)
    return (
        f"On {plain(domain)}, the last domain, the methods that forgot exactly nothing end at {listed}; "
        f"{plain(best[0])} reaches {compact(best[1])}. Backward transfer says what earlier domains lost; read it "
        "together with the average over all domains."
    )
