"""Panels: the figures of a run, each with its title, its note, its table and its text alternative.

A report prints all of them; the pages draw the same ones among their controls. Texts are plain: domains in them are
named by people, and whoever prints them escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.analysis.metrics import expected_jaccard
from copal_core.figures import forgetting, layers, stasis
from copal_core.figures.numbers import compact, signed
from copal_core.store.run_store import RunStore


@dataclass(frozen=True)
class Panel:
    """One figure and the words around it.

    Attributes:
        name: in lower case; names elements of a page and files, and is unique among the panels of a run.
        title: one line.
        note: how to read the figure; the same for all panels of a row, such as the curves of all domains.
        figure: what is drawn.
        table: what is drawn in numbers; the index means nothing.
        alt: the text alternative.
        methods: those that the colours stand for, in the order of a key; none where the colours mean something else.
    """

    name: str
    title: str
    note: str
    figure: go.Figure
    table: pd.DataFrame
    alt: str
    methods: tuple[str, ...] = ()


def of_run(store: RunStore) -> Iterator[Panel]:
    """Yield every panel that the run has enough results for."""
    perplexity, methods, domains = store.perplexity(), [str(m) for m in store.config.methods], store.domains
    if not len(perplexity):
        return
    summary = forgetting.summary_table(perplexity, methods, domains)
    if len(summary):
        yield average(summary, forgetting.dense_average(perplexity, domains))
        if len(domains) > 1:
            yield transfer(summary)
    yield from curves(perplexity, methods, domains)
    yield from matrices(perplexity, methods, domains)
    records, overlaps = store.layers(), store.overlaps()
    masked = [method for method in methods if (records["method"] == method).any()]
    if (moving := stasis_by_step(records, masked)) is not None:
        yield moving
    for number, method in enumerate(masked, start=1):
        step = int(records[records["method"] == method]["step"].max())
        blocks = int(records["block"].max()) + 1
        yield from layer_maps(records, [(method, step)], "memory", domains, blocks, first=number)
    if len(masked) > 1 and len(overlaps):
        step, removed = int(overlaps["step"].max()), store.config.structure.removed
        shared = overlap(overlaps, masked, step, removed)
        if np.isfinite(shared.table[masked].to_numpy(float)).any():
            yield shared


def average(summary: pd.DataFrame, dense: float) -> Panel:
    """Return the average perplexity of each method. summary: of `forgetting.summary_table`, not empty."""
    best = summary.loc[summary["average"].idxmin()]
    return Panel(
        "average",
        "Average perplexity at the end (lower is better)",
        "Mean over all domains after the last step. The dashed line is the dense model.",
        forgetting.average_figure(summary, dense),
        summary[["method", "average"]],
        f"Bars: average perplexity by method. Lowest: {best['method']} with {compact(best['average'])}; "
        f"dense model {compact(dense)}.",
    )


def transfer(summary: pd.DataFrame) -> Panel:
    """Return the backward transfer of each method. summary: of `forgetting.summary_table`, over two domains or more."""
    found = summary.dropna(subset=["backward_transfer"])
    words = "; ".join(f"{row.method} {signed(row.backward_transfer)}" for row in found.itertuples())
    return Panel(
        "transfer",
        "Backward transfer (lower is better)",
        "How much earlier domains' perplexity rose after they were added: 0 is nothing forgotten, below 0 they "
        "improved. Forward transfer, in the table: how far the steps before a domain's own had moved its perplexity "
        "from the dense one.",
        forgetting.transfer_figure(summary),
        summary.drop(columns="average"),
        f"Bars: backward transfer by method: {words}.",
    )


def curves(perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str]) -> list[Panel]:
    """Return the perplexity of each domain over the steps, in the order of the domains."""
    tables = [forgetting.curve_table(perplexity, methods, domains, domain) for domain in domains]
    found = []
    for number, (domain, table) in enumerate(zip(domains, tables, strict=True), start=1):
        ends = "; ".join(f"{method} {compact(table[method].iloc[-1])}" for method in methods)
        panel = Panel(
            f"curve-{number}",
            f"Perplexity on {number}. {domain}",
            "After each step; lower is better. The vertical band marks the step at which the domain itself was added; "
            "the dashed grey line is the dense model.",
            forgetting.curve_figure(table, added=number, beside=tables),
            table,
            f"Lines: perplexity on {domain} after each step, by method. After the last step: {ends}.",
            methods=(*methods, "dense"),
        )
        found.append(panel)
    return found


def matrices(perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str]) -> list[Panel]:
    """Return the perplexity matrix of each method, all on one colour scale."""
    tables = {method: forgetting.matrix_table(perplexity, method, domains) for method in methods}
    colours = forgetting.ratio_range(list(tables.values()))
    return [
        Panel(
            f"matrix-{number}",
            f"Perplexity matrix of {method}",
            "Rows: after each step. Columns: domains. Colour: how many times the dense model's perplexity, on one "
            "scale for all methods: pale blue is as good as dense, orange is forgotten.",
            forgetting.matrix_figure(table, colours),
            table.reset_index(),
            f"Table of colours: perplexity of {method} after each step on each domain; the numbers are in the table.",
        )
        for number, (method, table) in enumerate(tables.items(), start=1)
    ]


def stasis_by_step(records: pd.DataFrame, methods: Sequence[str]) -> Panel | None:
    """Return the stasis of each method; None before a second step. records: a run's layers."""
    table = stasis.step_table(records, methods)
    if not len(table):
        return None
    return Panel(
        "stasis",
        "Stasis by step",
        "Of the weights pruned now, the share that was pruned one step before. At 100 % the mask no longer moves; "
        "two masks chosen independently would meet at the sparsity.",
        stasis.step_figure(table),
        table,
        "Lines: stasis after each step, by method; the numbers are in the table.",
        methods=tuple(dict.fromkeys(table["method"])),
    )


def layer_maps(
    records: pd.DataFrame,
    choices: Sequence[tuple[str, int]],
    metric: str,
    domains: Sequence[str],
    blocks: int,
    marked: tuple[int, str] | None = None,
    first: int = 1,
) -> list[Panel]:
    """Return one map of layers by projections for each choice, all on one colour scale.

    Args:
        records: a run's layers.
        choices: method and step (from 1) of each map. Of one that is not computed yet, the table is empty.
        metric: a name of `layers.METRICS`.
        domains: names of the run's domains.
        blocks: number of decoder blocks.
        marked: block and projection that are outlined.
        first: number in the name of the first panel.
    """
    shown = layers.metric_named(metric)
    tables = [layers.layer_table(records, method, step, metric) for method, step in choices]
    colours = layers.colour_range(metric, *tables)
    note = shown.explanation
    if shown.logarithmic:
        note += " Scores of two methods have no common unit."
    return [
        Panel(
            f"layers-{number}",
            f"{shown.label}: {method} after {step}. {domains[step - 1]}",
            note,
            layers.layer_figure(table, metric, colours, blocks, marked),
            table,
            f"Heatmap of {shown.label.lower()} by decoder block and projection, {blocks} by seven. {_ends(table)}",
        )
        for number, ((method, step), table) in enumerate(zip(choices, tables, strict=True), start=first)
    ]


def _ends(table: pd.DataFrame) -> str:
    """Name the layers with the highest and the lowest value."""
    finite = table.dropna(subset=["value"])
    if not len(finite):
        return "Nothing is computed yet."
    high, low = finite.loc[finite["value"].idxmax()], finite.loc[finite["value"].idxmin()]
    return f"Highest: block {high['block']} {high['projection']}; lowest: block {low['block']} {low['projection']}."


def overlap(
    overlaps: pd.DataFrame, methods: Sequence[str], step: int, removed: float, projection: str = ""
) -> Panel:
    """Return the mask overlap of every two methods after `step`; empty cells where one has not finished it.

    removed: the share of weights that every mask removes. projection: one of seven; all of them by default.
    """
    table = stasis.overlap_table(overlaps, methods, step, projection)
    return Panel(
        "overlap",
        "Overlap of pruned weights between methods",
        f"Jaccard index after step {step}: 1 is the same mask; two independent masks would have "
        f"{expected_jaccard(removed):.2f}.",
        stasis.overlap_figure(table),
        table.rename_axis("method").reset_index(),
        "Table of colours: overlap of every two methods' masks; the numbers are in the table.",
    )
