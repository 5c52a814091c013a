"""Text as HTML with each token coloured by how much better or worse a model predicts it; all text is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from copal_core.figures.numbers import compact, signed

WORSE, BETTER = (213, 94, 0), (0, 114, 178)  # orange and blue, which colour-blind readers can distinguish
_LEVELS, _DARKEST = 6, 0.62  # translucent, so that text stays readable on the light and the dark theme
_BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;max-height:26rem;overflow-y:auto;"
    "line-height:1.75;padding:0.6rem 0.75rem;border:1px solid rgba(128,128,128,0.35);"
    "border-radius:6px;font-size:0.95rem"
)
Row = Sequence[float | None]


def limit_of(*changes: Row) -> float:
    """Return the end of the colour scale in nats, shared by compared texts: one token in twenty lies beyond it."""
    sizes = [abs(nats) for row in changes for nats in row if nats is not None and math.isfinite(nats)]
    return max(0.5, float(np.quantile(sizes, 0.95))) if sizes else 0.5


def difference(later: Row, earlier: Row) -> list[float | None]:
    """Return later − earlier, None where either is None."""
    return [None if a is None or b is None else a - b for a, b in zip(later, earlier, strict=True)]


def coloured(pieces: Sequence[str], changes: Row, hovers: Sequence[str], limit: float) -> str:
    """Return one block of HTML with the colour and hover text of every piece.

    Args:
        pieces: of the text, one per token.
        changes: of each piece's loss in nats; None where it is not predicted.
        hovers: hover text of each piece.
        limit: end of the colour scale, as `limit_of` returns it.
    """
    spans = [
        f'<span style="{_style(change, limit)}" title="{html.escape(hover, quote=True)}">{literal(piece)}</span>'
        for piece, change, hover in zip(pieces, changes, hovers, strict=True)
    ]
    return f'<div dir="auto" tabindex="0" role="group" style="{_BOX}">{"".join(spans)}</div>'


def written(prompt: str, continuation: str) -> str:
    """Return HTML of a continuation after its prompt, which is paler."""
    pale = f'<span style="opacity:0.6">{literal(prompt)}</span>' if prompt else ""
    return f'<div dir="auto" tabindex="0" role="group" style="{_BOX}">{pale}{literal(continuation)}</div>'


def literal(text: str) -> str:
    """Escape any text as HTML; line ends get a visible mark, because they are tokens too."""
    return html.escape(text, quote=True).replace("\n", '<span style="opacity:0.45">↵</span>\n')


def legend(limit: float) -> str:
    """Return HTML of the colour scale from better to worse, with its ends in nats."""
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
    """Return the loss of a piece in each model, one per line."""
    if all(loss is None for loss in losses):
        return "first token: not predicted"
    return "\n".join(f"{name}: {compact(loss)} nats" for name, loss in zip(names, losses, strict=True))


def token_table(pieces: Sequence[str], names: Sequence[str], losses: Sequence[Row]) -> pd.DataFrame:
    """Return place, text and the loss in each model, one row per piece of text."""
    columns = {name: list(row) for name, row in zip(names, losses, strict=True)}
    return pd.DataFrame({"place": range(1, len(pieces) + 1), "text": list(pieces), **columns})


def worst(pieces: Sequence[str], changes: Row, losses: Sequence[Row], count: int = 12) -> list[list[str]]:
    """Return the pieces whose loss rose most: place, context with the piece in «», change, loss in each model."""
    risen = [(-change, index) for index, change in enumerate(changes) if change is not None and change > 0]
    rows = []
    for fall, index in sorted(risen)[:count]:
        before = "".join(pieces[max(0, index - 8) : index])[-36:]
        context = f"{'…' if index > 8 else ''}{before}«{pieces[index]}»".replace("\n", "↵")
        rows.append([str(index + 1), context, signed(-fall), *(compact(row[index]) for row in losses)])
    return rows


def _style(change: float | None, limit: float) -> str:
    if change is None or not math.isfinite(change):
        return "outline:1px dotted rgba(128,128,128,0.5)" if change is not None else "opacity:0.55"
    level = min(_LEVELS, round(abs(change) / limit * _LEVELS))
    if not level:
        return ""
    red, green, blue = WORSE if change > 0 else BETTER
    return f"background:rgba({red},{green},{blue},{_DARKEST * level / _LEVELS:.2f});border-radius:3px"
