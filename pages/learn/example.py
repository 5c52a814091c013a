"""The toy layer and its two texts, the same in every step of the lesson."""

from __future__ import annotations

import streamlit as st

from pages.learn.toy import tokens
from pages.learn.toy.layer import Array, Mask, gather, lost

LAYER = tokens.layer()
DIRECTION_A = 12  # degrees: text A uses mostly input 1
DIRECTION_B = 75
TOKENS = 150


def text_a(count: int = TOKENS) -> Array:
    """Return tokens of text A, (count, 2)."""
    return tokens.text(DIRECTION_A, count, seed=1)


def text_b(direction: float = DIRECTION_B, count: int = TOKENS) -> Array:
    """Return tokens of text B, (count, 2)."""
    return tokens.text(direction, count, seed=2)


def lost_on(text: Array, kept: Mask) -> float:
    """Return the share of the layer's output on `text` that the mask loses."""
    return lost(LAYER, LAYER * kept, gather(text, LAYER).gram)


def badge() -> None:
    """Mark the numbers that follow as those of the toy layer."""
    st.badge(
        "Toy layer",
        icon=":material/toys:",
        color="gray",
        help="Numbers of an invented layer of eight weights, computed with the product's own formulas.",
    )


def metrics(*shown: tuple[str, str, str | None]) -> None:
    """Show a row of metrics: label, value, explanation."""
    with st.container(horizontal=True, gap="medium"):
        for label, value, explanation in shown:
            st.metric(label, value, help=explanation, width="content")
