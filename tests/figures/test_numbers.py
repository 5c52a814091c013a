from __future__ import annotations

import math

import pytest

from copal_core.figures import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "∞"), (0, "0"), (8.123456, "8.12"), (40.1999999, "40.2"),
        (1234.5678, "1,235"), (-2.5, "−2.50"), (0.0000123, "1.23×10⁻⁵"), (6.02e23, "6.02×10²³"), (-1e6, "−1.00×10⁶"),
        (99.9999, "100"),
    ],
)  # fmt: skip
def test_compact_shows_three_figures(value: float | None, text: str) -> None:
    assert numbers.compact(value) == text


def test_signs_percentages_and_units() -> None:
    assert numbers.signed(5.42) == "+5.42"
    assert numbers.signed(-0.04) == "−0.0400"
    assert numbers.signed(0) == "0"
    factors = [numbers.factor(value) for value in (1, 10, 0.01, 1.2589, 1e6)]
    assert factors == ["×1", "×10", "×0.01", "×1.26", "×1.00×10⁶"]
    assert numbers.percent(0.5) == "50 %"
    assert numbers.percent(0.333333) == "33.3 %"
    assert numbers.percent(None) == "–"
    assert [numbers.several(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert numbers.count(134_515_008) == "134.5 M"
    assert numbers.count(576) == "576"
    assert numbers.size(538_060_032) == "513 MiB"
    assert [numbers.duration(s) for s in (0.2, 59, 200, 1500, 7500, None)] == [
        "0 s", "59 s", "3 min 20 s", "25 min", "2 h 5 min", "–",
    ]  # fmt: skip
