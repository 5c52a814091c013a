"""A text with a colour behind every token: how much better or worse a model predicts it. HTML, all of it escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from copal_core.figures.numbers import compact, signed

WORSE, BETTER = (213, 94, 0), (0, 114, 178)  # orange and blue: told apart by colour-blind readers too
_LEVELS, _DARKEST = 6, 0.62  # translucent, so that the page's own text colour stays readable, light and dark
_BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-height:26rem;overflow-y:auto;"
    "line-height:1.75;padding:0.6rem 0.75rem;border:1px solid rgba(128,128,128,0.35);"
    "border-radius:6px;font-size:0.95rem"
)
Row = Sequence[float | None]


def limit_of(*changes: Row) -> float:
    """Where the colours end, shared by texts that are compared: nats, so that one token in twenty is beyond."""
    sizes = [abs(one) for row in changes for one in row if one is not None and math.isfinite(one)]
    return max(0.5, float(np.quantile(sizes, 0.95))) if sizes else 0.5


def difference(later: Row, earlier: Row) -> list[float | None]:
    """later - earlier, None where either is."""
    return [None if a is None or b is None else a - b for a, b in zip(later, earlier, strict=True)]


def coloured(pieces: Sequence[str], changes: Row, hovers: Sequence[str], limit: float) -> str:
    """One block of HTML: every piece of text with its colour and its hover text."""
    spans = [
        f'<span style="{_style(change, limit)}" title="{html.escape(hover, quote=True)}">{literal(piece)}</span>'
        for piece, change, hover in zip(pieces, changes, hovers, strict=True)
    ]
    return f'<div dir="auto" tabindex="0" role="group" style="{_BOX}">{"".join(spans)}</div>'


def written(prompt: str, continuation: str) -> str:
    """A continuation after the end of its prompt, which is paler."""
    pale = f'<span style="opacity:0.6">{literal(prompt)}</span>' if prompt else ""
    return f'<div dir="auto" tabindex="0" role="group" style="{_BOX}">{pale}{literal(continuation)}</div>'


def literal(text: str) -> str:
    """Text of anybody as HTML that shows it; the end of a line gets a mark, so that its token has a place."""
    return html.escape(text, quote=True).replace("\n", '<span style="opacity:0.45">↵</span>\n')


def legend(limit: float) -> str:
    """The colours from better to worse, with their ends in nats."""
    steps = [level / _LEVELS * limit for level in range(-_LEVELS, _LEVELS + 1)]
    boxes = "".join(
        f'<span style="display:inline-block;width:1.1rem;height:0.9rem;{_style(step, limit)}"></span>'
        for step in steps
    )
    ends = f"{compact(limit)} nats"
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0.5rem;font-size:0.85rem">'
        f"<span>−{ends}, better</span><span>{boxes}</span><span>+{ends} or more, worse</span></div>"
    )


def hover_text(names: Sequence[str], losses: Row) -> str:
    """The loss of a piece in each model, one line each."""
    if all(loss is None for loss in losses):
        return "nothing comes before it: not predicted"
    return "\n".join(f"{name}: {compact(loss)} nats" for name, loss in zip(names, losses, strict=True))


def token_table(pieces: Sequence[str], names: Sequence[str], losses: Sequence[Row]) -> pd.DataFrame:
    """place, text and the loss in each model, one row a piece of text."""
    columns = {name: list(row) for name, row in zip(names, losses, strict=True)}
    return pd.DataFrame({"place": range(1, len(pieces) + 1), "text": list(pieces), **columns})


def worst(pieces: Sequence[str], changes: Row, losses: Sequence[Row], count: int = 12) -> list[list[str]]:
    """The pieces whose loss rose most: place, context with the piece in «», change, and the loss in each model."""
    known = [(change, place) for place, change in enumerate(changes) if change is not None and change > 0]
    rows = []
    for change, place in sorted(known, key=lambda one: (-one[0], one[1]))[:count]:
        before = "".join(pieces[max(0, place - 8) : place])[-36:]
        context = f"{'…' if place > 8 else ''}{before}«{pieces[place]}»".replace("\n", "↵")
        rows.append([str(place + 1), context, signed(change), *(compact(row[place]) for row in losses)])
    return rows


def _style(change: float | None, limit: float) -> str:
    if change is None or not math.isfinite(change):
        return "outline:1px dotted rgba(128,128,128,0.5)" if change is not None else "opacity:0.55"
    level = min(_LEVELS, round(abs(change) / limit * _LEVELS))
    if not level:
        return ""
    red, green, blue = WORSE if change > 0 else BETTER
    return f"background:rgba({red},{green},{blue},{_DARKEST * level / _LEVELS:.2f});border-radius:3px"
