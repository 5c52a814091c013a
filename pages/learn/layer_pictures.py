"""Pictures of the first three steps: one layer, one text."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from copal_core.figures.numbers import compact, percent
from pages.learn import example, figures
from pages.learn.state import remember, remembered, widget
from pages.learn.toy import tokens
from pages.learn.toy.layer import CRITERIA, Sums, best_mask, gather, keep_highest, lost, score
from pages.shared import charts
from pages.shared.words import GLOSSARY

_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
# the neuron and the six tokens of step 3, chosen so that the criteria disagree at first
_NEURON = np.array([[1.0, 0.9]])
_SIX = ((1.7, 0.4), (-1.3, -0.5), (0.5, 1.2), (-0.4, -1.4), (0.9, -0.4), (-2.2, 3.1))
_FAR = 3.2  # largest coordinate that a token can be moved to
_NAMES = {"magnitude": "Magnitude", "wanda": "Wanda", "copal": "COPAL"}


def by_hand(controls: Any, picture: Any) -> None:
    """Draw step 1: the reader decides which weight each neuron keeps."""
    weight, text = example.LAYER, example.text_a()
    start = keep_highest(np.abs(weight))
    chosen = []
    with controls, st.container(horizontal=True, gap="small"):
        for index in range(len(weight)):
            first = 1 if start[index, 0] else 2
            st.segmented_control(
                f"Neuron {index + 1} keeps", [1, 2], format_func=lambda number: f"input {number}", required=True,
                **widget(f"keep-{index}", first),
            )  # fmt: skip
            chosen.append(remembered(f"keep-{index}", first))
    kept = np.array([[choice == 1, choice == 2] for choice in chosen])
    gram = gather(text, weight).gram
    best = lost(weight, weight * best_mask(weight, gram), gram)
    with picture:
        example.badge()
        example.metrics(
            ("Output lost", percent(example.lost_on(text, kept)), GLOSSARY["output lost"]),
            (
                "Least possible",
                percent(best),
                "The lowest of all 16 masks that keep one weight in each neuron.",
            ),
        )
        charts.show(
            figures.plane_figure({"A": text}, weight, weight * kept),
            figures.plane_table({"A": text}, weight, weight * kept),
            "lesson-layer",
            "Tokens of text A as dots; four neurons as grey arrows, and as orange arrows after pruning",
        )


def calibration(controls: Any, picture: Any) -> None:
    """Draw step 2: the number of calibration tokens, and a random choice of them."""
    weight, whole = example.LAYER, example.text_a(tokens.WHOLE_TEXT)
    with controls:
        st.select_slider("Calibration tokens", _SIZES, **widget("tokens", 4))
        st.button("Draw other tokens", icon=":material/casino:", on_click=_draw_others, key="lesson-draw")
    count = remembered("tokens", 4)
    seen = tokens.sample(whole, count, seed=remembered("draw", 0))
    kept = keep_highest(score("copal", weight, gather(seen, weight)))
    wanted = keep_highest(score("copal", weight, gather(whole, weight)))
    same = int((kept == wanted).all(axis=1).sum())
    with picture:
        example.badge()
        example.metrics(
            (
                "Neurons decided right",
                f"{same} of {len(weight)}",
                f"Same decision as by COPAL's scores on all {tokens.WHOLE_TEXT} tokens.",
            ),
            (
                "Draws with the right mask",
                percent(_agreement(count), 0),
                f"Share of 200 random draws of {count} out of {tokens.WHOLE_TEXT} tokens with every neuron right.",
            ),
        )
        charts.show(
            figures.plane_figure({"A": seen}, weight, weight * kept, faint=whole),
            figures.plane_table({"A": seen}, weight, weight * kept),
            "lesson-calibration",
            f"{count} tokens of text A are bold, the rest faint; four neurons before and after pruning",
        )


def scores(controls: Any, picture: Any) -> None:
    """Draw step 3: one neuron, and six tokens that can be moved."""
    chosen = int(remembered("moved", 6)) - 1
    with controls:
        _mover(_points(), chosen)
    points = _points()
    sums = gather(points, _NEURON)
    silent = float(np.degrees(np.arctan2(-_NEURON[0, 0], _NEURON[0, 1])))
    with picture:
        example.badge()
        charts.text_table(
            ["criterion", "score of input 1", "score of input 2", "keeps", "output lost"],
            [_scored(criterion, sums) for criterion in CRITERIA],
            "Scores of the two weights under each criterion, the weight that is kept, and the output lost",
        )
        charts.show_selectable(
            figures.plane_figure({"A": points}, _NEURON, silent=silent, chosen=chosen),
            figures.plane_table({"A": points}, _NEURON),
            "lesson-scores",
            "Six numbered tokens, one neuron as an arrow, and the dashed line of tokens that give no output",
            _take_clicked,
        )
        st.caption(
            "For one neuron with two weights, Wanda always loses least: its squared score is exactly that loss. COPAL "
            "measures how the output *reacts*; which of the two is better for a whole model has to be measured."
        )


def _points() -> np.ndarray:
    """Return the tokens where the reader has put them, (6, 2)."""
    return np.array([remembered(f"point-{index}", point) for index, point in enumerate(_SIX)])


def _scored(criterion: str, sums: Sums) -> list[str]:
    pair = score(criterion, _NEURON, sums)  # (1, 2)
    kept = keep_highest(pair)
    loss = percent(lost(_NEURON, _NEURON * kept, sums.gram), 0)
    which = "input 1" if kept[0, 0] else "input 2"
    return [_NAMES[criterion], compact(pair[0, 0]), compact(pair[0, 1]), which, loss]


def _mover(points: np.ndarray, chosen: int) -> None:
    """Show the widgets that choose a token and move it; a token can also be clicked."""
    st.selectbox("Token (or click it)", [1, 2, 3, 4, 5, 6], **widget("moved", chosen + 1))
    for axis in range(2):
        key = f"lesson-axis-{axis}"
        st.session_state[key] = float(np.clip(round(points[chosen, axis], 1), -_FAR, _FAR))
        st.slider(
            f"Its input {axis + 1}", -_FAR, _FAR, step=0.1, format="%.1f", key=key, on_change=_move,
            args=(chosen, axis, key),
        )  # fmt: skip
    st.button("Reset all tokens", on_click=_reset, key="lesson-put-back", icon=":material/undo:")


def _move(token: int, axis: int, key: str) -> None:
    point = list(remembered(f"point-{token}", _SIX[token]))
    point[axis] = st.session_state[key]
    remember(f"point-{token}", tuple(point))


def _reset() -> None:
    for index, point in enumerate(_SIX):
        remember(f"point-{index}", point)


def _take_clicked(point: dict[str, Any]) -> None:
    if point.get("curve_number") == 0 and 0 <= int(point.get("point_index", -1)) < len(_SIX):
        remember("moved", int(point["point_index"]) + 1)


def _draw_others() -> None:
    remember("draw", remembered("draw", 0) + 1)


@st.cache_data(max_entries=20, show_spinner=False)
def _agreement(count: int) -> float:
    return tokens.agreement(example.text_a(tokens.WHOLE_TEXT), example.LAYER, count)
