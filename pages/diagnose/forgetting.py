"""Forgetting attribution: which parts of the model hold what was forgotten, measured by giving their weights back."""

from __future__ import annotations

import math
from functools import partial

import streamlit as st

from copal_core.analysis.diagnosis import attribution_folder
from copal_core.analysis.diagnosis.attribution_folder import Attribution, request_for
from copal_core.analysis.diagnosis.kept import Result
from copal_core.figures import attribution as figures
from copal_core.figures.numbers import compact, percent, signed
from copal_core.store.run_store import RunStore
from pages.diagnose.choices import kept, nothing_kept
from pages.shared import actions, charts, job_panel, links, runs
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_KINDS = {"block": "Blocks", "projection": "Projections", "layer": "Single layers"}


def draw(store: RunStore) -> None:
    """Draw the choice of what to attribute, how far the job is, and the ranking so far."""
    if len(store.config.domains) < 2:
        empty_state(
            "Needs two domains", "With one domain nothing can be forgotten. Add another on **Domains**."
        )
        return
    last = len(store.config.domains)
    methods = [one.method for one in kept(store) if one.step == last and Result(one.method, 1) in kept(store)]
    if not methods:
        nothing_kept(store, "Attribution gives earlier weights back to the final model, and so needs both.")
        return
    found = _chosen(store, methods)
    _job(found)
    _result(found)


def _chosen(store: RunStore, methods: list[str]) -> Attribution:
    with st.container(border=True):
        left, middle, right = st.columns(3)
        with left:
            method = links.choose("Method", "method", methods, _most_forgetful(store, methods))
        with middle:
            steps = [one.step for one in kept(store) if one.method == method]
            domains = [number for number in range(1, len(store.domains)) if number in steps]
            domain = links.choose(
                "Forgotten domain", "domain", domains, 1, show=lambda number: runs.step_name(store, number)
            )
        with right:
            kind = links.choose(
                "Restore, one at a time", "by", list(_KINDS), "block", show=lambda name: _KINDS[name],
                help="Blocks: all seven projections of a decoder block. Projections: one kind over all blocks. "
                "Single layers: one projection of one block; takes seven times as long as blocks.",
            )  # fmt: skip
    return Attribution(store, request_for(store, method, domain, kind))


def _most_forgetful(store: RunStore, methods: list[str]) -> str:
    """The method whose loss on the first domain rose most: the one with something to attribute."""
    table = runs.table(store, "perplexity")
    chosen = table[table["domain"] == store.domains[0]].set_index(["method", "step"])["mean_nats"]
    last = len(store.domains)

    def rise(method: str) -> float:
        value = float(chosen.get((method, last), math.nan)) - float(chosen.get((method, 1), math.nan))
        return value if math.isfinite(value) else -math.inf

    return max(methods, key=rise)


def _job(found: Attribution) -> None:
    """Offer to start it; once started, show how far it is. The page is drawn again after each pass."""
    start = partial(attribution_folder.start, found)
    if found.state().status != "none":
        job_panel.show(found, "attribution", start, version=partial(_last_pass, found))
        return
    actions.say_outcome()
    with st.container(border=True):
        st.markdown(
            "Each part of the final model gets back the weights it had when the domain was added, one part at a "
            "time, and the loss is measured again. A first ranking takes one evaluation window; the parts that "
            "return most are then measured on more. You may leave this page meanwhile."
        )
        st.button("Measure", type="primary", key="start-attribution", on_click=actions.attempt, args=(start,))


def _last_pass(found: Attribution) -> int:
    """Return when the latest pass was written, in nanoseconds; 0 before the first."""
    path = found.folder / "tally.json"
    return path.stat().st_mtime_ns if path.is_file() else 0


def _result(found: Attribution) -> None:
    result = found.result()
    if not result["parts"]:
        return
    request, forgotten = found.request, result["forgotten_nats"]
    before, after = (math.exp(min(700.0, result["mean_nats"][name])) for name in ("earlier", "final"))
    words = (
        f"On **{plain(result['domain'])}** the loss went from {compact(math.log(before))} to "
        f"{compact(math.log(after))} nats a token ({signed(forgotten)}; perplexity {compact(before)} "
        f"to {compact(after)}) "
        f"between {plain(runs.step_name(found.store, request.step))} and "
        f"{plain(runs.step_name(found.store, request.final))}."
    )
    st.markdown(words, help=GLOSSARY["forgetting"])
    if forgotten <= 0:
        st.caption("Nothing was forgotten here: giving weights back cannot return what was not lost.")
    table = figures.attribution_table(result["parts"])
    charts.title(
        "Loss returned by each part when its earlier weights come back",
        help="Blue: the model improves on this domain. Orange: it gets worse, as the other parts have moved on. "
        "Lines: the standard error over tokens. Parts add up to the whole only roughly. A dashed line marks all that "
        "was forgotten, where it is near.",
    )
    best = table.iloc[0]
    share = (
        f", {percent(best['share'])} of what was forgotten"
        if best["share"] is not None and forgotten > 0
        else ""
    )
    st.caption(
        f"Most returns with {plain(best['part'])}: {signed(best['nats'])} nats a token{share}. "
        f"Windows measured: {table['windows'].min()} for every part, up to {table['windows'].max()} for the first."
    )
    if len(table) > figures.MOST:
        st.caption(f"The first {figures.MOST} of {len(table)} parts are drawn; the table has all.")
    figure = figures.attribution_figure(table, forgotten)
    charts.show(figure, table, "attribution", "Ranked bars of the loss that each part returns")
    so_far = "" if result["status"] == "done" else " so far"
    st.caption(
        f"Protocol: {plain(found.store.protocol_stamp())}; {result['windows']} evaluation windows measured{so_far}"
    )
