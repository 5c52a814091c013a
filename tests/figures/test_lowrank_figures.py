"""Figures of masks and low rank, from small tables worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from copal_core.config import RunConfig
from copal_core.figures import bases, lowrank, sizes, subspaces


def reading(method: str, kind: str, amount: float, error: float, domain: str = "code") -> SimpleNamespace:
    return SimpleNamespace(
        method=method, domain=domain, kind=kind, share=0.5625, amount=amount, parameters=512, bytes=1152, error=error
    )  # fmt: skip


READINGS = [
    reading("wanda", "mask", 0.5, 0.031),
    reading("magnitude", "mask", 0.5, 0.2),
    reading("svd", "rank", 9, 0.3),
    reading("whitened-svd", "rank", 9, 0.11),
    reading("wanda 2:4", "point", 0.5, 0.05),
]


def test_words_name_the_best_of_each_and_which_loses_less() -> None:
    table = lowrank.reading_table(READINGS)
    words = lowrank.in_words(table, "code", 0.5625)
    assert "the best mask (wanda, removed 50 %) loses 3.1 %" in words
    assert "the best low rank (whitened-svd, rank 9) 11 %" in words
    assert "Low rank loses 3.5 times as much" in words
    assert "Nothing is removed" in lowrank.in_words(table, "code", 1.0)
    assert "nothing to compare" in lowrank.in_words(table, "drama", 0.5)


@pytest.mark.parametrize(
    ("error", "words"),
    [(0, "0 %"), (3e-6, "< 0.001 %"), (0.0004, "0.04 %"), (0.031, "3.1 %"), (1.0, "100 %")],
)
def test_errors_are_said_as_people_do(error: float, words: str) -> None:
    assert lowrank.lost(error) == words


def test_curves_mark_the_slider_on_every_line() -> None:
    share = np.linspace(0.1, 1, 10)
    curves = pd.concat(
        pd.DataFrame({"method": name, "domain": "code", "kind": kind, "share": share, "error": 1.001 - share})
        for name, kind in (("wanda", "mask"), ("svd", "rank"))
    )
    figure = lowrank.curves_figure(curves, lowrank.reading_table(READINGS), "code", 0.5625)
    assert figure.layout.yaxis.type == "log"
    assert figure.layout.shapes[0].x0 == 0.5625
    assert len(figure.data) == 3  # two lines and the marks
    assert list(figure.data[2].y) == [0.031, 0.2, 0.3, 0.11]
    assert figure.data[0].line.dash == "solid" and figure.data[1].line.dash == "dash"


def test_pictures_share_one_scale_with_a_floor() -> None:
    weight = np.full((4, 4), 3.0)
    colours = subspaces.picture_range([weight])
    assert colours[1] == pytest.approx(math.log10(3)) and colours[0] == pytest.approx(math.log10(0.1))
    figure = subspaces.pair_figure(weight, np.zeros((4, 4)), (8, 8), colours)
    assert [trace.zmin for trace in figure.data] == [colours[0]] * 2
    assert float(np.min(figure.data[1].z)) == pytest.approx(
        colours[0]
    )  # nothing lost: the floor, and no infinity


def test_subspace_tables() -> None:
    inside = subspaces.inside_table({"wanda": (0.8, 0.75, 0.5), "copal": (0.9, 0.75, 0.5)})
    assert list(inside["what"]) == ["wanda", "copal", "dense weight", "by chance"]
    angles = subspaces.angle_table({"wanda": np.array([1.0, 0.5, 0.0])})
    assert list(angles["degrees"].round()) == [0, 60, 90]
    assert len(subspaces.angle_table({})) == 0
    spectra = subspaces.spectrum_table({"weight": np.array([1.0, 0.5]), "code": np.array([1.0, 0.1])})
    assert len(subspaces.spectrum_figure(spectra, 1).data) == 2


def test_sizes_of_a_run_use_the_bytes_of_its_factors() -> None:
    config = RunConfig(checkpoint="tiny", domains=("code",), methods=("wanda:restart", "svd:restart"))
    rows = [("dense", 0, 8.0), ("wanda:restart", 1, 10.0), ("svd:restart", 1, 30.0)]
    perplexity = pd.DataFrame(
        [{"method": m, "step": s, "domain": "code", "perplexity": p} for m, s, p in rows]
    )
    factors = pd.DataFrame([{"method": "svd:restart", "step": 1, "rows": 10, "columns": 10, "bytes": 100}])
    table = sizes.run_sizes(config, "a-run", perplexity, factors, ["code"])
    assert dict(zip(table["method"], table["share"], strict=True)) == {
        "wanda:restart": 0.5625,
        "svd:restart": 0.5,
    }
    shown = sizes.wide(table)
    assert list(shown.columns) == ["method", "kept", "code", "average", "name"]
    figure = sizes.size_figure(table, {"code": 8.0})
    assert {trace.name for trace in figure.data} == {"wanda:restart", "svd:restart"}
    assert figure.layout.shapes[0].y0 == 8.0  # the dense model's line


def test_a_method_without_its_last_step_is_left_out() -> None:
    config = RunConfig(checkpoint="tiny", domains=("code",), methods=("wanda:restart",))
    nothing = pd.DataFrame(columns=["method", "step", "domain", "perplexity"])
    table = sizes.run_sizes(config, "a-run", nothing, pd.DataFrame(columns=["method", "step"]), ["code"])
    assert not len(table)
    assert not len(sizes.wide(table))


def test_bases_kept_dropped_and_added() -> None:
    entry = {"block": 0, "projection": "q_proj", "before": [4.0, 3.0, 2.0, 1.0], "kept": [0, 3], "after": [4.4, 0.9],
             "added": 1}  # fmt: skip
    table = bases.bases_table(entry)
    assert list(table["kept"]) == [True, False, False, True]
    words = bases.in_words(table, 1)
    assert "2 of 4 bases were kept and 1 new ones added. 1 of the kept ones" in words
    assert list(bases.layers_table([entry]).iloc[0]) == [0, "q_proj", 4, 2, 1, 1]
    assert len(bases.bases_figure(table).data) == 3
