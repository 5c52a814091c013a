"""Figures of neurons: tables worked out by hand, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from copal_core.config import RunConfig
from copal_core.figures import neurons

METHODS = ("mutual-information", "copal-neurons", "magnitude-neurons", "random-neurons")
CONFIG = RunConfig(
    checkpoint="tiny",
    domains=("a", "b"),
    methods=("wanda:joint", *(f"{name}[share={share}]:joint" for share in (0.1, 0.3) for name in METHODS)),
)


def perplexity(**values: float) -> pd.DataFrame:
    """Of every neuron method after step 2: by selector, ten more on the second domain and at the larger share."""
    rows = [("dense", 0, domain, 20.0) for domain in ("a", "b")] + [("wanda:joint", 2, "a", 21.0)]
    for method in map(str, CONFIG.methods[1:]):
        for domain in ("a", "b"):
            value = (
                values[method.partition("[")[0].partition("-")[0]]
                + 10 * (domain == "b")
                + 10 * ("0.3" in method)
            )
            rows.append((method, 2, domain, value))
    return pd.DataFrame(rows, columns=["method", "step", "domain", "perplexity"])


DENSE = {"a": 20.0, "b": 20.0}
TABLE = perplexity(mutual=24, copal=22, magnitude=44, random=90)


def test_shares_stand_in_the_table_and_not_in_the_name() -> None:
    table = neurons.share_table(CONFIG, TABLE, ["a", "b"], 2)
    assert sorted(set(table["method"])) == sorted(f"{name}:joint" for name in METHODS)
    row = table[
        (table["method"] == "copal-neurons:joint") & (table["share"] == 0.3) & (table["domain"] == "b")
    ]
    assert row["perplexity"].tolist() == [42.0]
    assert not len(neurons.share_table(CONFIG, TABLE, ["a", "b"], 1))


def test_every_line_begins_at_the_dense_model() -> None:
    table = neurons.share_table(CONFIG, TABLE, ["a", "b"], 2)
    figure = neurons.share_figure(table, DENSE, "a")
    assert len(figure.data) == 4
    for trace in figure.data:
        assert list(trace.x) == [0, 0.1, 0.3] and trace.y[0] == 20.0
    assert figure.layout.yaxis.type != "log"
    steep = perplexity(mutual=24, copal=22, magnitude=4400, random=90)
    steep = neurons.share_table(CONFIG, steep, ["a", "b"], 2)
    assert neurons.share_figure(steep, DENSE, "a").layout.yaxis.type == "log"
    # one domain's spread decides for the other, so that the panels can be compared
    alone = steep.assign(perplexity=steep["perplexity"].where(steep["domain"] == "a", 40.0))
    assert neurons.share_figure(alone, DENSE, "b").layout.yaxis.type == "log"


def test_the_spread_is_between_criteria_and_lots_are_none() -> None:
    table = neurons.share_table(CONFIG, TABLE, ["a", "b"], 2)
    ranked = neurons.standing(table, 0.1)
    assert [name.partition(":")[0] for name in ranked["method"]] == [
        METHODS[1],
        METHODS[0],
        METHODS[2],
        METHODS[3],
    ]
    found = neurons.spread_of(ranked)
    assert found is not None
    assert found["spread"] == pytest.approx(49 / 27 - 1) and found["random_perplexity"] == 95
    assert found["best"].startswith("copal") and found["worst"].startswith("magnitude")
    assert neurons.spread_of(ranked[ranked["method"].str.startswith(("random", "copal"))]) is None
    unfinished = table.drop(
        table[(table["method"] == "copal-neurons:joint") & (table["domain"] == "b")].index
    )
    assert not neurons.standing(unfinished, 0.1)["method"].str.startswith("copal").any()


@pytest.mark.parametrize(
    ("large", "words"),
    [(0.05, "20 % apart on small and 5 % apart on large: as published"),
     (2.0, "20 % apart on small and a factor of 3.00 apart on large: the opposite of the published finding")],
)  # fmt: skip
def test_the_finding_in_words(large: float, words: str) -> None:
    rows = [("small", 5e6, 0.1, 0.2), ("small", 5e6, 0.5, 9.0), ("large", 1e8, 0.1, large)]
    table = pd.DataFrame(rows, columns=["checkpoint", "parameters", "share", "spread"]).assign(
        best="x", worst="y"
    )
    assert words in neurons.finding(table)
    assert "says nothing" in neurons.finding(table[table["checkpoint"] == "small"])
    assert "no share in common" in neurons.finding(table.iloc[1:])
    figure = neurons.spread_figure(table)
    assert [trace.name for trace in figure.data] == ["10 % removed", "50 % removed"]
    assert list(figure.layout.xaxis.ticktext) == ["small<br>5 M", "large<br>100 M"]


def test_names_cannot_bring_markup_into_a_figure() -> None:
    table = pd.DataFrame(
        [("<b>x</b>", 5e6, 0.1, 0.2, "<i>", "<u>")],
        columns=["checkpoint", "parameters", "share", "spread", "best", "worst"],
    )
    figure = neurons.spread_figure(table)
    assert "<b>" not in figure.to_json() and "<i>" not in figure.to_json() and "<u>" not in figure.to_json()


def test_the_map_draws_decades_and_bears_an_empty_one() -> None:
    nats = np.full((16, 16), 1e-4)
    nats[2, 3] = nats[3, 2] = 0.5
    figure = neurons.map_figure(nats, 640)
    assert figure.data[0].z.shape == (16, 16) and figure.layout.yaxis.range == (640, 0)
    assert neurons.map_figure(np.zeros((4, 4)), 4).data
