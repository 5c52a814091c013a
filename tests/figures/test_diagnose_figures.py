"""Coloured text, ranked bars and single weights: what is drawn is what is in the table, and text stays text."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copal_core.figures import attribution, cells, tokens, weights

PIECES = ["<script>", "alert('x')", "\n", ' "q" & ', "שלום"]
DENSE = [None, 2.0, 1.0, 1.0, 1.0]
LATER = [None, 5.0, 0.0, 1.01, float("inf")]


def test_text_and_hover_are_escaped_and_coloured_by_sign() -> None:
    change = tokens.difference(LATER, DENSE)
    hovers = [
        tokens.hover_text(['dense "model"', "<b>"], list(row)) for row in zip(DENSE, LATER, strict=True)
    ]
    block = tokens.coloured(PIECES, change, hovers, 2.0)
    assert "<script" not in block and "alert(&#x27;x&#x27;)" in block
    spans = re.findall(r'<span style="([^"]*)" title="([^"]*)">', block)
    assert len(spans) == len(PIECES)
    styles = [style for style, _ in spans]
    assert "213,94,0" in styles[1] and "0,114,178" in styles[2]
    assert styles[3] == ""  # a change too small for a colour
    assert "outline" in styles[4]  # not finite: marked, not coloured
    assert spans[0][1] == "first token: not predicted"
    assert "&lt;b&gt;: 5.00 nats" in spans[1][1]
    assert re.sub("<[^>]*>", "", block).count("↵") == 1


def test_scale_is_shared_and_has_its_ends_named() -> None:
    assert tokens.limit_of([None, 0.1], [0.2, -0.1]) == 0.5
    wide = tokens.limit_of([float(n) for n in range(101)])
    assert wide == pytest.approx(95)
    legend = tokens.legend(wide)
    assert legend.count("213,94,0") == legend.count("0,114,178") == 6
    assert "95.0 nats" in legend


def test_the_worst_tokens_are_those_whose_loss_rose_most() -> None:
    losses = [[1.0] * 5, [1.0, 4.0, 0.5, 2.0, 1.0]]
    rows = tokens.worst(PIECES, tokens.difference(losses[1], losses[0]), losses)
    assert [row[0] for row in rows] == ["2", "4"]
    assert rows[0][2:] == ["+3.00", "1.00", "4.00"]
    assert "«alert('x')»" in rows[0][1]
    table = tokens.token_table(PIECES, ["dense", "later"], losses)
    assert list(table["later"]) == losses[1] and len(table) == 5


def ranking(parts: int) -> list[dict[str, Any]]:
    return [
        {
            "part": f"block {n}",
            "nats": 0.5 - 0.02 * n,
            "error": 0.01,
            "share": None if n % 2 else 0.1,
            "windows": 1,
        }
        for n in range(parts)
    ]


def test_bars_are_ranked_and_those_left_out_are_in_the_table() -> None:
    table = attribution.attribution_table(ranking(40))
    assert len(table) == 40
    bars = attribution.attribution_figure(table, 0.6).data[0]
    assert len(bars.y) == attribution.MOST and bars.y[0] == "block 0"
    assert list(bars.x) == list(table["nats"][: attribution.MOST])
    assert "10 % of what was forgotten" in bars.customdata[0] and "forgotten" not in bars.customdata[1]
    near, far = (len(attribution.attribution_figure(table, value).layout.shapes) for value in (0.6, 5.0))
    assert (near, far) == (1, 0)
    assert len(attribution.attribution_figure(attribution.attribution_table([]), 0.0).data) == 1


@pytest.mark.parametrize(
    "shape, tiles", [((576, 1536), (64, 64)), ((11008, 4096), (64, 64)), ((32, 8), (32, 8))]
)
def test_a_tile_holds_its_weight_and_stays_within_the_layer(
    shape: tuple[int, int], tiles: tuple[int, int]
) -> None:
    for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 3, shape[1] // 2)):
        rows, columns = weights.tile_of(row, column, shape, tiles)
        assert row in rows and column in columns
        assert rows.start >= 0 and rows.stop <= shape[0] and columns.start >= 0 and columns.stop <= shape[1]
        assert min(12, shape[1]) <= len(columns) <= 48


def test_every_tile_and_every_weight_can_be_clicked() -> None:
    scores = np.abs(np.random.default_rng(0).normal(size=(8, 16))).astype(np.float32)
    drawn = cells.score_map({"score": scores}, (80, 320), (-2.0, 1.0))
    figure = weights.clickable_map(drawn, (8, 16), (80, 320), (range(10), range(20)))
    marks = figure.data[1]
    assert len(marks.x) == 128 and marks.customdata[0] == pytest.approx(scores[0, 0])
    assert weights.weight_of({"x": marks.x[-1], "y": marks.y[-1]}, (80, 320)) == (75, 310)
    values, removed = scores[:4, :5], scores[:4, :5] < 0.5
    zoom = weights.zoom_figure(values, removed, range(10, 14), range(20, 25), (11, 22), "value")
    assert len(zoom.data[1].x) == removed.sum()
    assert weights.weight_of({"x": 22, "y": 11}, (80, 320)) == (11, 22)
    zeros = weights.zoom_figure(np.zeros((2, 2)), None, range(2), range(2), (0, 0), "value")
    assert len(zeros.data) == 2
    for point in ({}, {"x": "1", "y": 2}, {"x": float("nan"), "y": 1}, {"x": 999, "y": 1}, {"x": -1, "y": 1}):
        assert weights.weight_of(point, (80, 320)) is None


def test_margins_leave_out_what_has_none() -> None:
    rows = [("wanda", "a", 0.5), ("wanda", "<b>", 2e9), ("copal", "a", float("nan"))]
    table = pd.DataFrame(
        [
            {"criterion": c, "domain": d, "margin": m, "text": weights.standing_text(1, 2, 4, 2)}
            for c, d, m in rows
        ]
    )
    figure = weights.margin_figure(table, ["a", "<b>"])
    assert [len(trace.x) for trace in figure.data] == [1, 1]
    assert figure.data[1].name == "&lt;b&gt;" and figure.data[1].x[0] == 1e4
    assert "rank 2 of 4; the lowest 2 are removed (50 %)" in table["text"][0]
