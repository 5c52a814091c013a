"""The spread of a group's outcomes over seeds, calibration sizes or orders, and whether a gap is more than chance."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.analysis import groups as analysis
from copal_core.figures import groups as figures
from copal_core.figures.numbers import compact
from copal_core.store.groups import Group
from pages.shared import charts, links
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_METRIC_HELP = {"average": "perplexity", "ratio": "perplexity", "backward_transfer": "bwt"}
_COMPARED, _SENTENCES, _PANELS = 6, 18, 12


def show(group: Group, table: pd.DataFrame) -> None:
    """Verdicts, the band over calibration sizes, a strip for each part of like runs, and the numbers."""
    over = group.sampled
    metric = links.choose(
        "Measure", "measure", list(analysis.METRICS), show=lambda name: analysis.METRICS[name]
    )
    if analysis.without_dense(table)["run"].nunique() < 2:
        empty_state("Not enough runs yet", "The figure appears once two runs of the group are finished.")
        return
    if not table[metric].notna().any():
        empty_state("Needs two domains", "With one domain nothing can be forgotten.")
        return
    _verdicts(table, metric, over)
    _bands(table, metric, over)
    _strips(table, metric, over)
    _table(analysis.spread(table, metric, over), over)


def _verdicts(table: pd.DataFrame, metric: str, over: str) -> None:
    """Neighbours in the ranking, in words; at the largest calibration size where there are several."""
    largest = table[table["windows"] == table["windows"].max()]
    sentences = analysis.verdicts(largest, metric, over, _COMPARED)
    with st.container(border=True):
        title = "How much does the order matter?" if over == "order" else "Is the gap between methods chance?"
        st.markdown(f"**{title}**")
        for sentence in sentences[:_SENTENCES]:
            st.markdown(f"- {plain(sentence)}")
        if len(sentences) > _SENTENCES:
            st.caption(f"{len(sentences) - _SENTENCES} more; filter to see them.")
        if not sentences:
            st.markdown("One method has no gap to another. Repeat a run with two methods or more.")
        elif over == "seed":
            st.caption(
                "Each seed draws its own calibration and evaluation windows. Methods of the same seed share them, so "
                "that gaps are taken seed by seed."
            )


def _bands(table: pd.DataFrame, metric: str, over: str) -> None:
    """A band for each part of runs that differ in the number of calibration windows alone."""
    parts = analysis.alike(table, over, "calibration")
    parts = [(words, part) for words, part in parts if part["windows"].nunique() > 1]
    for number, (words, part) in enumerate(parts[:_PANELS], start=1):
        spread = analysis.spread(part, metric, over)
        title = f"By calibration size{f', {plain(words)}' if words else ''} (lower is better)"
        charts.title(title, help=GLOSSARY[_METRIC_HELP[metric]])
        st.caption(f"Lines: mean over the {over}s. Bands: from the lowest to the highest {over}.")
        charts.method_key([name for name in dict.fromkeys(spread["method"]) if name != "dense"])
        alt = f"{analysis.METRICS[metric]} by calibration windows and method"
        charts.show(figures.band_figure(spread, metric), spread, f"bands-{number}", alt)


def _strips(table: pd.DataFrame, metric: str, over: str) -> None:
    parts = analysis.alike(table, over)
    for number, (words, part) in enumerate(parts[:_PANELS], start=1):
        count = part[over].nunique()
        drawn = f"{count} orders of the same domains" if over == "order" else f"{count} seeds"
        charts.title(f"{drawn}{f', {plain(words)}' if words else ''} (lower is better)")
        st.caption("Dots: runs. Bars: from the lowest to the highest. Ticks: means.")
        alt = f"{analysis.METRICS[metric]} of {count} {over}s, by method"
        charts.show(figures.strip_figure(part, metric, over), part, f"strip-{number}", alt)
    if len(parts) > _PANELS:
        st.caption(f"{len(parts) - _PANELS} more parts are left out; filter to see them.")


def _table(spread: pd.DataFrame, over: str) -> None:
    """The spread in numbers; an interval only over seeds, for all orders of domains are no sample."""
    settings = list(spread.columns[1 : spread.columns.get_loc("runs")])
    settings = [name for name in settings if name != "windows" and spread[name].nunique() > 1]
    rows = [
        [
            "dense model" if row["method"] == "dense" else row["method"],
            *(str(row[name]).replace("x", "×") if name == "calibration" else str(row[name]) for name in settings),
            str(row["runs"]),
            *(compact(row[name]) for name in ("mean", "least", "most", "range")),
            *([_interval(row)] if over == "seed" else []),
        ]
        for row in spread.to_dict("records")
    ]  # fmt: skip
    columns = ["Method", *(name.removeprefix("run_").capitalize() for name in settings)]
    columns += ["Runs", "Mean", "Lowest", "Highest", "Spread"]
    columns += ["95 % interval of the mean"] if over == "seed" else []
    charts.text_table(columns, rows, "Spread of each method over the runs of the group")


def _interval(row: dict[str, float]) -> str:
    return f"{compact(row['low'])} to {compact(row['high'])}" if row["runs"] > 1 else "–"
