"""Runs side by side: ticked in the list, drawn together only where their protocols are the same."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.analysis import comparability
from copal_core.errors import CopalError
from copal_core.figures import forgetting
from copal_core.figures import groups as figures
from copal_core.figures.numbers import compact, signed
from copal_core.store.folder import ACTIVE, status_of
from copal_core.analysis.results import perplexity_matrix
from copal_core.store.runs import Runs
from copal_core.store.run_store import RunStore
from copal_core.methods.describe import removed, removed_by
from pages.shared import charts, links, runs
from pages.shared.text import empty_state, plain, show_problem
from pages.shared.words import GLOSSARY

MOST = 6  # as many ids as a link holds, and as a figure can show


def chosen() -> list[str]:
    """Ids of the runs that are ticked, in the order of ticking; they live in the link."""
    return [name for name in (links.read("runs") or "").split(".") if name][:MOST]


def tick(run_id: str) -> None:
    """The box that takes a run into the comparison."""
    ticked = chosen()
    key = f"compare-{run_id}"
    st.session_state[key] = run_id in ticked
    st.checkbox(
        "Compare",
        key=key,
        on_change=_toggle,
        args=(run_id,),
        disabled=run_id not in ticked and len(ticked) >= MOST,
        help=f"Up to {MOST} runs at once.",
    )


def forget(run_id: str) -> None:
    """A run is gone: so is its tick."""
    _write([name for name in chosen() if name != run_id])


def bar() -> None:
    """Show what is ticked, and the way to the comparison."""
    ticked = chosen()
    if not ticked:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="compare-bar"):
        words = "1 run ticked; tick another to compare" if len(ticked) == 1 else f"{len(ticked)} runs ticked"
        st.markdown(words, width="content")
        st.button(
            "Compare them",
            type="primary",
            key="compare-them",
            on_click=links.write,
            args=("view", "side"),
            disabled=len(ticked) < 2,
            icon=":material/compare_arrows:",
        )
        st.button("Untick all", key="untick", on_click=links.write, args=("runs", None))


def show() -> None:
    """The ticked runs, in parts of one protocol each."""
    _picker()
    stores = _open(chosen())
    if len(stores) < 2:
        empty_state("Choose two runs or more", "Pick them above, or tick **Compare** in the list of runs.")
        return
    why = comparability.reason(stores)
    if why:
        show_problem(why)
    letters = dict(zip([store.id for store in stores], figures.runs_named(len(stores)), strict=True))
    _key(stores, letters)
    _follow_unfinished(stores)
    parts = comparability.group_by_protocol(stores)
    for number, part in enumerate(parts, start=1):
        if len(parts) > 1:
            names = ", ".join(letters[store.id] for store in part)
            st.subheader(f"Protocol {number}: {names}")
        _part(part, letters, number)


def _follow_unfinished(stores: list[RunStore]) -> None:
    """While a run is being computed, what is drawn follows it."""
    active = [store for store in stores if status_of(store) in ACTIVE]
    if active:
        _redraw_when_changed(active, [_standing(store) for store in active])


@st.fragment(run_every=2)
def _redraw_when_changed(stores: list[RunStore], drawn: list[tuple[str, int]]) -> None:
    if [_standing(store) for store in stores] != drawn:
        st.rerun()


def _standing(store: RunStore) -> tuple[str, int]:
    return status_of(store), runs.version(store)


def _picker() -> None:
    known = {run.id: run for run in Runs().list()}
    st.session_state["compare-picker"] = [name for name in chosen() if name in known]

    def show_as(run_id: str) -> str:
        run = known[run_id]
        return run.title or f"{run.checkpoint}, {run.id}"

    st.multiselect(
        "Runs to compare",
        list(known),
        key="compare-picker",
        format_func=show_as,
        max_selections=MOST,
        on_change=lambda: _write(st.session_state["compare-picker"]),
    )


def _open(ids: list[str]) -> list[RunStore]:
    found = []
    for run_id in ids:
        try:
            found.append(Runs().open(run_id))
        except CopalError as error:
            show_problem(f"One of the runs is left out: {error}")
    return found


def _key(stores: list[RunStore], letters: dict[str, str]) -> None:
    """Show which letter is which run, and what each removed."""
    rows = [
        [
            letters[store.id],
            str(store.info.get("title") or store.id),
            " → ".join(store.domains),
            removed(store.config),
            status_of(store),
        ]
        for store in stores
    ]
    charts.text_table(["Letter", "Run", "Domains", "Removed", "Status"], rows, "The runs that are compared")


def _part(part: list[RunStore], letters: dict[str, str], number: int) -> None:
    table = _outcomes(part, letters)
    if not len(table):
        empty_state("Nothing finished yet", "A method appears here once its last step is evaluated.")
        return
    dense = forgetting.dense_average(runs.table(part[0], "perplexity"), part[0].domains)
    left, right = st.columns(2)
    with left:
        charts.title("Average perplexity after the last step (lower is better)", help=GLOSSARY["perplexity"])
        figure = figures.side_by_side_figure(table, "average", dense)
        charts.show(figure, table, f"compared-average-{number}", "Average perplexity by run and method")
    with right:
        charts.title("Backward transfer (lower is better)", help=GLOSSARY["bwt"])
        if len(part[0].domains) < 2:
            empty_state("Needs two domains", "With one domain nothing can be forgotten.")
        else:
            figure = figures.side_by_side_figure(table, "backward_transfer", 0.0)
            charts.show(figure, table, f"compared-bwt-{number}", "Backward transfer by run and method")
    domains = part[0].domains
    columns = [
        "Run",
        "Method",
        "Removed",
        *(f"{name} (last)" for name in domains),
        "Average",
        "Backward transfer",
    ]
    charts.text_table(columns, _rows(part, letters), "Perplexity after the last step, by run and method")
    first = part[0]
    st.caption(f"Protocol: {plain(first.protocol_stamp())}. The dashed line is the dense model.")


def _outcomes(part: list[RunStore], letters: dict[str, str]) -> pd.DataFrame:
    """letter, run, removed and the outcomes of finished methods."""
    tables = []
    for store in part:
        perplexity, methods = runs.table(store, "perplexity"), runs.methods_of(store)
        table = forgetting.summary_table(perplexity, methods, store.domains)
        table.insert(0, "letter", letters[store.id])
        table.insert(1, "run", store.id)
        table.insert(3, "removed", [removed_by(store.config, str(name)) for name in table["method"]])
        tables.append(table)
    found = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return found.astype({"backward_transfer": float, "forward_transfer": float})


def _rows(part: list[RunStore], letters: dict[str, str]) -> list[list[str]]:
    rows = []
    for store in part:
        perplexity = runs.table(store, "perplexity")
        for entry in forgetting.summary_table(perplexity, runs.methods_of(store), store.domains).itertuples():
            last = perplexity_matrix(perplexity, entry.method, store.domains)[-1]
            rows.append(
                [
                    letters[store.id],
                    entry.method,
                    removed_by(store.config, entry.method),
                    *(compact(value) for value in last),
                    compact(entry.average),
                    "–" if entry.backward_transfer is None else signed(entry.backward_transfer),
                ]
            )
    return rows


def _toggle(run_id: str) -> None:
    ticked = chosen()
    _write([name for name in ticked if name != run_id] if run_id in ticked else [*ticked, run_id])


def _write(ids: list[str]) -> None:
    links.write("runs", ".".join(ids) or None)
