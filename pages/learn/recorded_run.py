"""The lesson's sentences on the recorded run; every number is read from its records when it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis.results import stasis_by_step
from copal_core.figures import forgetting as forgetting_figures
from copal_core.figures.numbers import compact, count, percent, signed, size
from copal_core.methods import stored_size
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.learn.state import remembered, widget
from pages.shared import charts, runs
from pages.shared.text import empty_state, plain


def recorded() -> RunStore | None:
    """Open the recorded run that ships with the product; None if it has been removed."""
    recording = next((run for run in Runs().list() if run.recorded), None)
    return Runs().open(recording.id) if recording else None


def beside(step: int) -> None:
    """Show a short text on how this step looks in the recorded run, with its protocol."""
    if step > len(_SENTENCES):
        return
    with st.container(border=True):
        store = recorded()
        if store is None:
            empty_state(
                "The recorded run is not here",
                "The toy layer needs no run. For real numbers, start a run on **Prune**.",
            )
            return
        _badge(store)
        st.markdown(_together(_SENTENCES[step - 1](store)))
        runs.stamp(store)


def real_run(controls: Any, picture: Any) -> None:
    """Draw step 8: the recorded run's perplexity of one domain after each step."""
    store = recorded()
    if store is None:
        with picture:
            empty_state(
                "The recorded run is not here",
                "Start a run on **Prune**; **Stasis and forgetting** then draws it.",
            )
        return
    domains, perplexity, methods = store.domains, runs.table(store, "perplexity"), runs.methods_of(store)
    with controls:
        st.radio("Domain", domains, format_func=plain, **widget("domain", domains[0]))
        st.toggle("Draw magnitude too, far above the others", **widget("with-magnitude", False))
        _outcome(perplexity, methods, domains)
    domain = remembered("domain", domains[0])
    domain = domain if domain in domains else domains[0]
    if not remembered("with-magnitude", False):
        methods = [name for name in methods if not name.startswith("magnitude")]
    table = forgetting_figures.curve_table(perplexity, methods, domains, domain)
    with picture:
        _badge(store)
        charts.method_key(methods)
        charts.show(
            forgetting_figures.curve_figure(table, added=domains.index(domain) + 1),
            table,
            "lesson-run",
            f"Perplexity on {domain} after each step, by method",
        )
        runs.stamp(store)


def memory_size() -> str:
    """Return a sentence on the size of COPAL's memory in the recorded run; empty without one."""
    store = recorded()
    layers = runs.table(store, "layers") if store else pd.DataFrame()
    if store is None or not len(layers):
        return ""
    weights = _weights(layers)
    return (
        f" In the recorded run that is {count(weights)} sums ({size(4 * weights)} as 32-bit numbers), one for "
        "each weight that can be pruned. A memory of sums is not small, but it does not grow with the text."
    )


def last_domain() -> tuple[str, list[tuple[str, float]], tuple[str, float]] | None:
    """Return the last domain and its final perplexities.

    Returns:
        The domain; (method, perplexity) of the methods with a backward transfer of 0; (method, perplexity) of the
        best method. None without a recorded run or without such methods.
    """
    store = recorded()
    if store is None:
        return None
    domains, perplexity = store.domains, runs.table(store, "perplexity")
    summary = forgetting_figures.summary_table(perplexity, runs.methods_of(store), domains)
    finals = {name: _final(perplexity, name, domains[-1], len(domains)) for name in summary["method"]}
    still = list(summary.loc[summary["backward_transfer"].abs() < 1e-9, "method"])
    if not still or len(finals) < 2:
        return None
    best = min(finals, key=finals.__getitem__)
    return domains[-1], [(name, finals[name]) for name in still], (best, finals[best])


# -- one sentence or two for each step -----------------------------------------------------------------


def _pruning(store: RunStore) -> str:
    layers, perplexity, first = runs.table(store, "layers"), runs.table(store, "perplexity"), store.domains[0]
    step = layers[(layers["method"] == layers["method"].iloc[0]) & (layers["step"] == 1)]
    text = (
        f"{len(step)} layers have {count(_weights(layers))} weights; {percent(store.config.structure.removed)} of them "
        f"are set to zero. Perplexity on {plain(first)}: dense **{compact(_final(perplexity, 'dense', first, 0))}**"
    )
    named = {"magnitude": "keeping the largest weights", "wanda": "with Wanda's mask"}
    for criterion, words in named.items():
        method = _method(store, criterion)
        if method:
            text += f", {words} **{compact(_final(perplexity, method, first, 1))}**"
    return text + ". Lower is better."


def _windows(store: RunStore) -> str:
    seen, measured = store.config.protocol.calibration, store.config.protocol.evaluation
    return (
        f"Each domain's calibration set has {seen.count} windows of {seen.length} tokens: {seen.tokens:,} tokens. "
        f"Perplexity is then measured on {measured.count} other windows, and no document is in both: otherwise the "
        "measurement would be biased in favour of the mask."
    )


def _agreeing(store: RunStore) -> str:
    overlaps, perplexity = runs.table(store, "overlaps"), runs.table(store, "perplexity")
    copal, first = _method(store, "copal"), store.domains[0]
    parts = []
    for criterion in ("wanda", "magnitude"):
        other = _method(store, criterion)
        shared = _jaccard(overlaps, copal, other) if copal and other else None
        if shared is not None:
            parts.append(f"by copal or {plain(criterion)}, both prune **{percent(shared, 0)}**")
    text = f"Of the weights pruned after the first domain {'; '.join(parts)}. " if parts else ""
    scores = [
        f"{plain(criterion)} {compact(_final(perplexity, method, first, 1))}"
        for criterion in ("copal", "wanda", "magnitude")
        if (method := _method(store, criterion))
    ]
    return f"{text}Perplexity on {plain(first)} then: {', '.join(scores)}."


def _still(store: RunStore) -> str:
    layers = runs.table(store, "layers")
    parts = []
    for method in runs.mask_methods_of(store):
        moves = stasis_by_step(layers, method)
        if len(moves):
            parts.append(f"- {plain(method)}: {percent(float(moves['stasis'].iloc[-1]))}")
    text = "Stasis at the last step:\n\n" + "\n".join(parts) + "\n\n"
    text += (
        "High is not bad in itself: *sequential* cannot move, the others moved as far as the text required. "
    )
    if any(name.startswith("magnitude") for name in runs.mask_methods_of(store)):
        text += "Magnitude does not use any text. "
    return text + f"Two unrelated masks would share {percent(store.config.structure.removed)}."


def _forgotten(store: RunStore) -> str:
    method, perplexity = _method(store, "wanda", "restart"), runs.table(store, "perplexity")
    if method is None:
        return "The recorded run has no method that starts again from the dense weights."
    first, last = store.domains[0], len(store.domains)
    values = [compact(_final(perplexity, method, first, step)) for step in range(1, last + 1)]
    dense = compact(_final(perplexity, "dense", first, 0))
    return (
        f"{plain(method)} on {plain(first)}, after each of the {last} domains: **{' → '.join(values)}** "
        f"(dense {dense}). Every new domain removed weights that the first one needed."
    )


def _accumulated(store: RunStore) -> str:
    perplexity, domains = runs.table(store, "perplexity"), store.domains
    summary = forgetting_figures.summary_table(perplexity, runs.methods_of(store), domains)
    parts = []
    for criterion, strategy in (("copal", "accumulate"), ("wanda", "restart"), ("wanda", "joint")):
        row = summary[summary["method"] == _method(store, criterion, strategy)]
        if len(row):
            values = f"{signed(row['backward_transfer'].iloc[0])}, average {compact(row['average'].iloc[0])}"
            parts.append(f"- {plain(row['method'].iloc[0])}: {values}")
    return (
        "Backward transfer, and average perplexity at the end:\n\n" + "\n".join(parts) + "\n\n"
        "*joint* reads all past text again; *accumulate* does not. Lower is better in both."
    )


def _ranks(store: RunStore) -> str:
    shapes = store.info.get("checkpoint", {}).get("projections", {})
    share = stored_size.structure_share(store.config.structure)
    parts = [
        f"{plain(name)} ({rows} × {columns}): rank **{stored_size.rank_at(rows, columns, share)}** of "
        f"{min(rows, columns)}"
        for name, (rows, columns) in shapes.items()
        if name in ("q_proj", "down_proj")
    ]
    return (
        f"A mask that removes {percent(store.config.structure.removed)} stores {percent(share)} of the bytes. "
        f"The same bytes give {'; '.join(parts)}. This run has masks only; **Masks and low rank** measures both on "
        "a layer."
    )


_SENTENCES: tuple[Callable[[RunStore], str], ...] = (
    _pruning, _windows, _agreeing, _still, _forgotten, _accumulated, _ranks,
)  # fmt: skip


def _together(text: str) -> str:
    """Return `text` without a line break between a number and its percent sign."""
    return text.replace(" %", "\u00a0%")


def _outcome(perplexity: pd.DataFrame, methods: list[str], domains: list[str]) -> None:
    summary = forgetting_figures.summary_table(perplexity, methods, domains).sort_values("average")
    rows = [
        [row.method, compact(row.average), signed(row.backward_transfer)]
        for row in summary.itertuples()
    ]  # fmt: skip
    columns = ["method", "average perplexity", "backward transfer"]
    charts.text_table(columns, rows, "Average perplexity and backward transfer of each method, best first")


def _badge(store: RunStore) -> None:
    st.badge(
        f"Recorded run: {plain(store.config.checkpoint)}",
        icon=":material/database:",
        color="blue",
        help="Numbers here are measured on a real model and read from the recorded run's files.",
    )


def _method(store: RunStore, criterion: str, strategy: str | None = None) -> str | None:
    """Return the run's first method with this criterion (and strategy); None without one."""
    return next(
        (
            str(method)
            for method in store.config.methods
            if method.name == criterion and strategy in (None, method.strategy)
        ),
        None,
    )


def _final(perplexity: pd.DataFrame, method: str, domain: str, step: int) -> float:
    rows = perplexity[
        (perplexity["method"] == method) & (perplexity["domain"] == domain) & (perplexity["step"] == step)
    ]
    return float(rows["perplexity"].iloc[0]) if len(rows) else float("nan")


def _weights(layers: pd.DataFrame) -> int:
    step = layers[(layers["method"] == layers["method"].iloc[0]) & (layers["step"] == layers["step"].min())]
    return int(step["weights"].sum())


def _jaccard(overlaps: pd.DataFrame, first: str, second: str) -> float | None:
    pair = [first, second]
    chosen = overlaps[
        (overlaps["step"] == 1) & overlaps["method_a"].isin(pair) & overlaps["method_b"].isin(pair)
    ]
    either = chosen["either_pruned"].sum()
    return float(chosen["both_pruned"].sum() / either) if either else None
