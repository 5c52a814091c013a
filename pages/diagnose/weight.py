"""One weight: where it lies, what happened to it, how close it was, and the tokens that made it matter."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from copal_core.analysis.diagnosis.evidence import Evidence, Place, Standing, events, evidence_file, standing
from copal_core.analysis.diagnosis.kept import Result
from copal_core.analysis.diagnosis.pieces import visible
from copal_core.figures import weights
from copal_core.figures.numbers import compact, percent
from copal_core.store.run_store import RunStore
from pages.diagnose import weight_maps
from pages.diagnose.choices import kept, nothing_kept, watched
from pages.shared import charts, layer_maps, links, runs, tasks, words
from pages.shared.text import empty_state, plain


def draw(store: RunStore) -> None:
    """From the layer's map to one weight, and what is known of it."""
    shapes = store.info.get("checkpoint", {}).get("projections")
    if not shapes:
        empty_state("Not begun yet", "The run has not opened its checkpoint; come back once it has.")
        return
    with st.container(border=True):
        block, projection = layer_maps.choose_cell(store)
        shape = (int(shapes[projection][0]), int(shapes[projection][1]))
        methods = runs.mask_methods_of(store)
        choice = None
        if methods:
            choice = layer_maps.choose_map(store, layer_maps.MapChoice(methods[0], len(store.domains)))
        left, right = st.columns(2)
        with left:
            row = _number("Output neuron (row)", "row", shape[0])
        with right:
            column = _number("Input feature (column)", "column", shape[1])
    place = Place(block, projection)
    evidence = _evidence(store, place, row)
    result = Result(choice.method, choice.step) if choice else None
    weight_maps.draw(store, place, shape, (row, column), result, evidence)
    if evidence is None:
        return
    st.subheader(f"Output {row}, input {column} of {place}")
    _history(store, evidence, row, column)
    _standings(store, evidence, row, column)
    if result is not None:
        _decision(store, place, result, row, column)
    _moments(store, evidence, row, column)


def _number(label: str, name: str, size: int) -> int:
    """A place along one side of the weight, which lives in the URL."""
    text, key = links.read(name) or "", f"linked-{name}"
    current = int(text) if text.isdecimal() and len(text) < 8 and int(text) < size else size // 2
    st.session_state[key] = current
    st.number_input(
        f"{label}, 0 to {size - 1}", 0, size - 1, key=key,
        on_change=lambda: links.write(name, int(st.session_state[key])),
    )  # fmt: skip
    return current


def _evidence(store: RunStore, place: Place, row: int) -> Evidence | None:
    """The layer as it was gathered; while it was not, the offer to do so."""
    path = evidence_file(store, place)
    asked = ("layer", store.id, place.block, place.projection, row)
    if path.is_file():
        evidence = Evidence(path)
        if row in evidence.rows:
            return evidence
    task = watched(*asked)
    if task is None and (running := tasks.find(*asked)) and not running.finished.is_set():
        st.caption("You may leave this page; the work goes on.")
        return None
    with st.container(border=True):
        st.markdown(f"**{str(place).capitalize()} has not been read yet**")
        texts = plain(", ".join(store.domains))
        st.markdown(
            f"The dense model reads the calibration windows of {texts} up to this block, to score the layer under "
            "every criterion and to find the tokens that matter. Seconds for tiny, up to a minute for SmolLM2; "
            "once for each layer."
        )
        st.button(
            "Read this layer", type="primary", key="read-layer", on_click=tasks.start,
            args=asked,
        )  # fmt: skip
    return None


def _history(store: RunStore, evidence: Evidence, row: int, column: int) -> None:
    value = evidence.value(row, column)
    st.markdown(f"Value in the dense model: **{compact(value)}**")
    if not evidence.results:
        nothing_kept(store, "When this weight was dropped or revived cannot be told without them.")
        return
    steps = list(range(1, len(store.domains) + 1))
    rows = []
    for method in dict.fromkeys(one.method for one in evidence.results):
        known = {one.step: number for number, one in enumerate(evidence.results) if one.method == method}
        after = [evidence.after(known[step], row, column) if step in known else None for step in steps]
        said = [
            f"{event} ({compact(left)})"
            if event == "changed" or (event == "revived" and left != value)
            else event
            for event, left in zip(events(after, value), after, strict=True)
        ]
        rows.append([method, *said])
    charts.title(
        "What happened to it, step by step",
        help="kept: as in the dense model. dropped: removed at this step. still out: removed before. revived: back "
        "again. changed: kept with another value, as SparseGPT and low rank do.",
    )
    charts.text_table(
        ["Method", *(runs.step_name(store, step) for step in steps)], rows, "The weight after every step"
    )


def _standings(store: RunStore, evidence: Evidence, row: int, column: int) -> None:
    """Under every criterion and domain, in the dense model."""
    found = evidence.standings(list(words.criteria()), store, row, column)
    if not found:
        return
    charts.title(
        "How close it is, under every criterion and domain",
        help="The score over the threshold of those it is compared with, each domain by itself in the dense model. "
        "Left of ×1 it goes. The run's own decision, with what it remembered, is below.",
    )
    table = pd.DataFrame(
        [
            {
                "criterion": criterion,
                "domain": domain,
                "score": one.score,
                "rank": one.rank,
                "among": one.among,
                "threshold": math.nan if one.threshold is None else one.threshold,
                "margin": math.nan if one.margin is None else one.margin,
                "stays": one.stays,
                "text": weights.standing_text(one.score, one.rank, one.among, one.removed),
            }
            for criterion, domain, one in found
        ]
    )
    figure = weights.margin_figure(table, store.domains)
    charts.show(figure, table.drop(columns="text"), "margins", "Score over threshold by criterion and domain")


def _decision(store: RunStore, place: Place, result: Result, row: int, column: int) -> None:
    """The run's own: score, threshold and rank under the statistics that were used."""
    name = f"{result.method} after {runs.step_name(store, result.step)}"
    charts.title(f"How {plain(name)} decided")
    if result not in kept(store):
        st.caption("This run keeps no masks of that step, so that its decision cannot be replayed.")
        return
    path = evidence_file(store, place, result)
    asked = ("decision", store.id, place.block, place.projection, row, result.method, result.step)
    evidence = Evidence(path) if path.is_file() else None
    if evidence is None or row not in evidence.rows:
        watched(*asked)
        st.button(
            "Replay the decision", key="replay-decision", on_click=tasks.start,
            args=asked, icon=":material/replay:",
            help="The step's calibration runs again up to this block; the scores and thresholds are those of the run.",
        )  # fmt: skip
        return
    threshold = evidence.number("threshold") if evidence.has("threshold") else None
    found = standing(evidence.row("score", row), column, store.config.structure, threshold)
    after = evidence.after(0, row, column)
    _say_decision(store, result, found, evidence.value(row, column), after == 0)
    agreement = evidence.about["agreement"]
    st.caption(f"The replay makes the same mask as the run in {percent(agreement, 2)} of the layer.")


def _say_decision(store: RunStore, result: Result, found: Standing, before: float, gone: bool) -> None:
    if before == 0:
        st.markdown("It was **already zero** when this step began: it scores zero and stays out.")
        return
    close = ""
    if found.margin is not None:
        close = f", {compact(found.margin)} times the threshold of {compact(found.threshold)}"
    where = "its group" if store.config.structure.kind == "n:m" else "its row"
    st.markdown(
        f"It was **{'removed' if gone else 'kept'}**: score {compact(found.score)}{close}; rank {found.rank:,} of "
        f"{found.among:,} in {where}, of which the lowest {found.removed:,} go."
    )
    if result.method.startswith("sparsegpt"):
        st.caption(
            "SparseGPT chooses within blocks of columns, after updates: ranks and thresholds of the row are a guide."
        )


def _moments(store: RunStore, evidence: Evidence, row: int, column: int) -> None:
    """The tokens behind COPAL's score."""
    charts.title(
        "The tokens at which it matters",
        help="COPAL sums |output| · |input| over tokens. These tokens of the domain's calibration text add most, in "
        "the dense model. The token is in «»; the layer computes there what predicts the next one.",
    )
    names = store.domains
    number = links.choose(
        "Domain",
        "domain",
        list(range(1, len(names) + 1)),
        1,
        show=lambda one: names[one - 1],
        segments=len(names) < 6,
    )
    length = store.config.protocol.calibration.length
    rows = []
    for moment in evidence.strongest(number - 1, row, column):
        before, own, after = (visible(one) for one in evidence.context(number - 1, moment.token, length))
        text = f"{before[-40:]}«{own}»{after[:30]}".replace("\n", "↵")
        rows.append(
            [text, compact(moment.x), compact(moment.y), compact(moment.product), percent(moment.share)]
        )
    if rows:
        columns = ["Token in its text", "Input x", "Output y", "|y|·|x|", "Share of the sum"]
        charts.text_table(columns, rows, "The tokens with the largest products of input and output")
        seen = len(evidence.about["pieces"][number - 1])
        st.caption(f"Of the first {seen:,} calibration tokens of {plain(names[number - 1])}.")
    else:
        st.caption("Its input or its output is zero on all of this text.")
