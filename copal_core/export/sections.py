"""What a report shows of a run: figures, each with its words, its table and its text alternative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.analysis.metrics import expected_jaccard
from copal_core.analysis.results import perplexity_matrix
from copal_core.figures import forgetting, layers, stasis
from copal_core.figures.numbers import compact, signed
from copal_core.store.run_store import RunStore


@dataclass(frozen=True)
class Section:
    """One figure. title, note, alt: plain text; method_key: whether its colours are the methods'."""

    name: str
    title: str
    note: str
    figure: go.Figure
    table: pd.DataFrame
    alt: str
    method_key: bool = False


def sections(store: RunStore) -> Iterator[Section]:
    """Every figure that the run has enough results for."""
    perplexity, methods, domains = store.perplexity(), [str(m) for m in store.config.methods], store.domains
    if not len(perplexity):
        return
    yield from _outcome(perplexity, methods, domains)
    yield from _curves(perplexity, methods, domains)
    yield from _matrices(perplexity, methods, domains)
    found = store.layers()
    masked = [method for method in methods if (found["method"] == method).any()]
    yield from _stasis(found, masked)
    yield from _sensitivity(found, masked)
    yield from _overlaps(store, masked)


def _outcome(perplexity: pd.DataFrame, methods: list[str], domains: list[str]) -> Iterator[Section]:
    summary = forgetting.summary_table(perplexity, methods, domains)
    if not len(summary):
        return
    dense = forgetting.dense_average(perplexity, domains)
    best = summary.loc[summary["average"].idxmin()]
    yield Section(
        "average",
        "Average perplexity after the last domain",
        "Lower is better. The dashed line is the dense model.",
        forgetting.average_figure(summary, dense),
        summary[["method", "average"]],
        f"Bars: average perplexity by method. Lowest: {best['method']} with {compact(best['average'])}; "
        f"dense model {compact(dense)}.",
    )
    if len(domains) > 1:
        found = summary.dropna(subset=["backward_transfer"])
        words = "; ".join(f"{row.method} {signed(row.backward_transfer)}" for row in found.itertuples())
        yield Section(
            "transfer",
            "Backward transfer",
            "How much earlier domains' perplexity rose after they were added. Lower is better: 0 is nothing forgotten, "
            "below 0 they improved. "
            "Forward transfer: how far the steps before a domain's own had moved its perplexity from the dense one.",
            forgetting.transfer_figure(summary),
            summary.drop(columns="average"),
            f"Bars: backward transfer by method: {words}.",
        )


def _curves(perplexity: pd.DataFrame, methods: list[str], domains: list[str]) -> Iterator[Section]:
    tables = [forgetting.curve_table(perplexity, methods, domains, domain) for domain in domains]
    for number, (domain, table) in enumerate(zip(domains, tables, strict=True), start=1):
        ends = "; ".join(
            f"{method} {compact(perplexity_matrix(perplexity, method, domains)[-1, number - 1])}"
            for method in methods
        )
        yield Section(
            f"curve-{number}",
            f"Perplexity on {domain}",
            f"After each step; lower is better. The vertical band marks step {number}, at which {domain} was added; "
            "the dashed grey line is the dense model.",
            forgetting.curve_figure(table, added=number, beside=tables),
            table,
            f"Lines: perplexity on {domain} after each step, by method. After the last step: {ends}.",
            method_key=True,
        )


def _matrices(perplexity: pd.DataFrame, methods: list[str], domains: list[str]) -> Iterator[Section]:
    tables = {method: forgetting.matrix_table(perplexity, method, domains) for method in methods}
    colours = forgetting.ratio_range(list(tables.values()))
    for number, (method, table) in enumerate(tables.items(), start=1):
        yield Section(
            f"matrix-{number}",
            f"Perplexity matrix of {method}",
            "Rows: after each step. Columns: domains. Colour: how many times the dense model's perplexity, on one "
            "scale for all methods: pale blue is as good as dense, orange is forgotten.",
            forgetting.matrix_figure(table, colours),
            table.reset_index(),
            f"Table of colours: perplexity of {method} after each step on each domain; the numbers are in the table.",
        )


def _stasis(found: pd.DataFrame, masked: list[str]) -> Iterator[Section]:
    table = stasis.step_table(found, masked)
    if len(table):
        yield Section(
            "stasis",
            "Stasis by step",
            "Of the weights pruned now, the share that was pruned one step before. At 100 % the mask no longer moves; "
            "two masks chosen independently would meet at the sparsity.",
            stasis.step_figure(table),
            table,
            "Lines: stasis after each step, by method; the numbers are in the table.",
            method_key=True,
        )


def _sensitivity(found: pd.DataFrame, masked: list[str]) -> Iterator[Section]:
    for number, method in enumerate(masked, start=1):
        step = int(found[found["method"] == method]["step"].max())
        table = layers.layer_table(found, method, step, "memory")
        if len(table):
            blocks = int(found["block"].max()) + 1
            colours = layers.colour_range("memory", table)
            low, high = table.loc[table["value"].idxmin()], table.loc[table["value"].idxmax()]
            yield Section(
                f"layers-{number}",
                f"Mean score of each layer, {method}",
                f"After step {step}, from what the strategy remembers. Scores of two methods have no common unit.",
                layers.layer_figure(table, "memory", colours, blocks),
                table,
                f"Heatmap of {blocks} blocks by seven projections. Highest: block {high['block']} "
                f"{high['projection']}; lowest: block {low['block']} {low['projection']}.",
            )


def _overlaps(store: RunStore, masked: list[str]) -> Iterator[Section]:
    overlaps = store.overlaps()
    if len(masked) < 2 or not len(overlaps):
        return
    step = int(overlaps["step"].max())
    table = stasis.overlap_table(overlaps, masked, step)
    if np.isfinite(table.to_numpy(float)).any():
        by_chance = expected_jaccard(store.config.structure.removed)
        yield Section(
            "overlap",
            "Overlap of pruned weights between methods",
            f"Jaccard index after step {step}. 1 is the same mask; independent masks would have {by_chance:.2f}.",
            stasis.overlap_figure(table),
            table.rename_axis("method").reset_index(),
            "Table of colours: overlap of every two methods' masks; the numbers are in the table.",
        )
