"""Pictures of steps 4 to 7: two texts one after the other, and rank against mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from copal_core.figures.numbers import percent
from copal_core.methods import stored_size
from pages.learn import example, figures
from pages.learn.state import remembered, widget
from pages.learn.toy import rank as rank_one
from pages.learn.toy.layer import gather, keep_highest, lost, score
from pages.learn.toy.strategies import STRATEGIES, walk
from pages.learn.toy.tokens import fan
from pages.shared import charts
from pages.shared.words import GLOSSARY, strategies

_LENGTHS = [15, 50, 150, 500, 1500, 5000]
_LOUDNESS = [1, 3, 10, 30, 100]


def standing_still(controls: Any, picture: Any) -> None:
    """Draw step 4: score a pruned layer on another text."""
    with controls:
        direction = _turn_b()
        loud = st.select_slider(
            "Loudness of text B", _LOUDNESS, format_func=lambda times: f"{times} ×", **widget("loud", 1)
        )
    weight, texts = example.LAYER, [example.text_a(), loud * example.text_b(direction)]
    first, second = walk(weight, texts, "sequential")
    dense = score("copal", weight, gather(texts[1], weight))
    wanted = int((keep_highest(dense) != first.kept).any(axis=1).sum())
    moved = int((second.kept != first.kept).any(axis=1).sum())
    stays = float((~first.kept & ~second.kept).sum() / (~second.kept).sum())
    table = figures.score_table(dense, second.scores)
    with picture:
        example.badge()
        example.metrics(
            (
                "Text B would move",
                f"{wanted} of {len(weight)} neurons",
                "By COPAL's scores of the dense weights on text B alone.",
            ),
            ("Moved", str(moved), "Neurons that keep another input after text B than before."),
            ("Stasis", percent(stays), GLOSSARY["stasis"]),
        )
        charts.show(
            figures.score_figure(table),
            table,
            "lesson-still",
            "Scores of the eight weights on text B: outlined for dense weights, solid for the pruned ones",
        )


def forgetting(controls: Any, picture: Any) -> None:
    """Draw step 5: prune the dense layer for the newest text alone."""
    with controls:
        direction = _turn_b()
        st.segmented_control(
            "Pruned for", ["A", "B"], format_func=lambda name: f"text {name}", required=True,
            **widget("pruned-for", "B"),
        )  # fmt: skip
    after = remembered("pruned-for", "B")
    weight, texts = example.LAYER, {"A": example.text_a(), "B": example.text_b(direction)}
    steps = dict(zip("AB", walk(weight, list(texts.values()), "restart"), strict=True))
    with picture:
        example.badge()
        with st.container(horizontal=True, gap="medium"):
            for name, text in texts.items():
                now = example.lost_on(text, steps[after].kept)
                change = 100 * (now - example.lost_on(text, steps["A"].kept))
                st.metric(
                    f"Output lost on text {name}",
                    percent(now),
                    delta=f"{change:+.1f} points since text A" if abs(change) > 0.05 else None,
                    delta_color="inverse",
                    help=GLOSSARY["output lost"],
                    width="content",
                )
        charts.show(
            figures.plane_figure(texts, weight, steps[after].pruned),
            figures.plane_table(texts, weight, steps[after].pruned),
            "lesson-afresh",
            f"Tokens of texts A and B, and four neurons pruned for text {after} alone",
        )
        st.caption("Blue dots: text A. Green diamonds: text B. Orange: each neuron after pruning.")


def accumulating(controls: Any, picture: Any) -> None:
    """Draw step 6: the final loss of each strategy on both texts."""
    with controls:
        direction = _turn_b()
        length = st.select_slider(
            "Length of text B", _LENGTHS, format_func=lambda count: f"{count} tokens", **widget("length", 150)
        )
    losses = _losses(direction, length)
    worst = {name: max(pair) for name, pair in losses.items()}
    least = [name for name, value in worst.items() if value < min(worst.values()) + 1e-9]
    table = figures.loss_table(losses)
    with picture:
        example.badge()
        charts.show(
            figures.loss_figure(table),
            table,
            "lesson-sums",
            "Share of the output lost on text A and on text B after both, for each of the four strategies",
        )
        st.markdown(
            f"Text A has {example.TOKENS} tokens, text B {length}. Smallest loss on the text that loses more: "
            f"**{', '.join(least)}**."
        )
        with st.container(horizontal=True, gap="medium"):
            for name, meaning in strategies().items():
                if name in STRATEGIES:
                    st.caption(name, help=meaning, width="content")


def _losses(direction: int, length: int) -> dict[str, tuple[float, float]]:
    """Return strategy -> share of the output lost on text A and on text B at the end."""
    texts = [example.text_a(), example.text_b(direction, length)]
    measured = [
        example.text_a(),
        example.text_b(direction),
    ]  # the same texts for every calibrated length of B
    losses = {}
    for strategy in STRATEGIES:
        kept = walk(example.LAYER, texts, strategy)[-1].kept
        losses[strategy] = (example.lost_on(measured[0], kept), example.lost_on(measured[1], kept))
    return losses


def rank(controls: Any, picture: Any) -> None:
    """Draw step 7: all neurons on one line, compared with each on its own axis."""
    with controls:
        line = st.slider("Direction of the common line", 0, 179, format="%d°", **widget("line", 10))
        spread = st.slider("Spread of the neurons", 0, 150, step=10, format="%d°", **widget("spread", 60))
    weight, texts = fan(spread), {"A": example.text_a(), "B": example.text_b()}
    sums = gather(np.vstack(list(texts.values())), weight)
    placed = rank_one.on_line(weight, sums.gram, line)
    best = rank_one.whitened(weight, sums.gram)
    masked = weight * keep_highest(score("copal", weight, sums))
    sizes = (stored_size.rank_share(*weight.shape, 1), stored_size.mask_share(0.5))
    with picture:
        example.badge()
        example.metrics(
            ("Lost on your line", percent(lost(weight, placed, sums.gram)), GLOSSARY["output lost"]),
            (
                "On the best line",
                percent(lost(weight, best, sums.gram)),
                f"Found by whitened SVD, at {rank_one.direction(best):.0f}°.",
            ),
            ("By the mask", percent(lost(weight, masked, sums.gram)), "COPAL's, one weight in each neuron."),
        )
        charts.show(
            figures.plane_figure(texts, weight, placed, line=line),
            figures.plane_table(texts, weight, placed),
            "lesson-rank",
            "Tokens of both texts, four neurons, and the same neurons moved onto one common line",
        )
        st.caption(
            f"Stored: rank 1 takes {percent(sizes[0], 0)} of the dense layer's bytes, the mask {percent(sizes[1], 0)} "
            "(half of the weights at 16 bits, and one bit for each weight that marks it as kept or not)."
        )


def _turn_b() -> int:
    return st.slider(
        "Direction of text B",
        0,
        90,
        format="%d°",
        help=f"0°: uses mostly input 1; 90°: mostly input 2. Text A is at {example.DIRECTION_A}°.",
        **widget("direction", example.DIRECTION_B),
    )
