"""What the Sweep page is made of: one sweep's progress, its front and its small multiples."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis import sweeps
from copal_core.errors import CopalError
from copal_core.experiment import cluster, group_loop
from copal_core.figures import sweep as figures
from copal_core.figures.numbers import compact, percent, several, signed
from copal_core.store.folder import ACTIVE
from copal_core.store.groups import Group, Groups
from pages.shared import actions, charts, links
from pages.shared.text import empty_state, plain, show_error, show_problem
from pages.shared.words import GLOSSARY

_FILTERS = {
    "checkpoint": "Checkpoints",
    "order": "Orders",
    "structure": "Structures",
    "method": "Methods",
    "seed": "Seeds",
}
_VIEWS = {
    "front": "Size against perplexity",
    "transfer": "Forgetting against perplexity",
    "multiples": "Small multiples",
}
_PANELS, _SHOWN = 12, 12
_GO = "sweep-go"


def pick() -> Group | None:
    """The sweep chosen on the page; None with a message when there is none."""
    found = {group.id: group for group in Groups().list() if group.kind == sweeps.KIND}
    wanted = links.read("sweep")
    if wanted is not None and wanted not in found:
        show_error(CopalError(f"there is no sweep '{wanted[:64]}'; choose another below"))
    if not found:
        empty_state("No sweep yet", "Start one below: on **tiny** a dozen runs take a minute or two.")
        return None
    return found[links.choose("Sweep", "sweep", list(found), show=lambda name: _line(found[name]))]


def _line(group: Group) -> str:
    when = group.created[:16].replace("T", " ")
    parts = [when, group.title, several(len(group.members), "run"), group.state().status]
    return " · ".join(filter(None, parts))


def show(group: Group) -> None:
    """Progress, then what is finished."""
    state = group.state()
    if state.status in ACTIVE:
        _live(group)
    elif state.status != "done":
        if state.message:
            show_problem(f"This sweep is {state.status}: {state.message}")
        st.button(
            "Go on with it", key="resume-sweep", icon=":material/play_arrow:", type="primary",
            on_click=actions.attempt, args=(cluster.start, group),
        )  # fmt: skip
    table = _outcomes(group)
    if not len(table):
        empty_state("Nothing finished yet", "Each run appears here as soon as it is done.")
        return
    table = _filtered(table)
    view = links.choose(
        "View", "view", list(_VIEWS), show=lambda name: _VIEWS[name], segments=True, hidden_label=True
    )
    if view == "multiples":
        _multiples(table)
    else:
        _front(table, view)
    _stamp(group)
    if st.session_state.pop(_GO, False):
        st.switch_page("pages/stasis/page.py")


@st.fragment(run_every=2)
def _live(group: Group) -> None:
    if group.state().status not in ACTIVE:
        st.rerun()
    done, share = group_loop.progress(group)
    if st.session_state.setdefault(f"drawn-{group.id}", done) != done:
        st.session_state[f"drawn-{group.id}"] = done
        st.rerun()  # one more run for the figures
    st.progress(share, text=f"{done} of {len(group.members)} runs done")
    actions.say_while_watching()
    waiting = group.cancel_requested()
    st.button(
        "Cancelling" if waiting else "Cancel the sweep", key="cancel-sweep", disabled=waiting,
        icon=":material/stop_circle:", on_click=actions.attempt, args=(group_loop.cancel, group),
    )  # fmt: skip


def _outcomes(group: Group) -> pd.DataFrame:
    """Read again only when another run is done."""
    done = group_loop.progress(group)[0]
    known: dict[str, Any] = st.session_state.setdefault("sweep-outcomes", {})
    if known.get("key") != (group.id, done):
        known.update(key=(group.id, done), table=sweeps.outcomes(group))
    table: pd.DataFrame = known["table"]
    return table.assign(ratio=table["average"] / table["dense_average"])


def _filtered(table: pd.DataFrame) -> pd.DataFrame:
    """What the filters leave, which is never nothing; a filter is there only where there is a choice."""
    offered = {name: list(dict.fromkeys(table[name])) for name in _FILTERS}
    offered = {name: options for name, options in offered.items() if len(options) > 1}
    if not offered:
        return table
    with st.expander("Filter", key="sweep-filter"):
        for name, options in offered.items():
            chosen = st.multiselect(_FILTERS[name], options, key=f"sweep-{name}", placeholder="all")
            left = table[table[name].isin(chosen)] if chosen else table
            if len(left):
                table = left
            else:
                show_problem(
                    f"{_FILTERS[name]}: none of these is left by the filters above; shown without it"
                )
    return table


def _front(table: pd.DataFrame, view: str) -> None:
    y = _measure(table, ["average", "ratio"])
    x, words = "bytes" if table["checkpoint"].nunique() > 1 else "kept", GLOSSARY["bytes"]
    if view == "transfer":
        x, words = "backward_transfer", GLOSSARY["bwt"]
    if not table[x].notna().any():
        empty_state("Needs two domains", "With one domain nothing can be forgotten.")
        return
    front = sweeps.pareto(table, x, y)
    charts.title("Every run a point: lower, and further left, is better", help=words)
    dense = figures.dense_level(table, y) is not None
    charts.method_key(list(dict.fromkeys(table["method"])), dense=dense)
    st.caption(
        f"{plain(figures.shape_key(table))}. Ringed and joined: the Pareto front, the runs that no other run beats in "
        "both. Click a point to open its run."
    )
    figure = figures.front_figure(table, x, y, front.tolist())
    alt = f"{figures.AXES[y]} against {figures.AXES[x]}, a point for each of {len(table)} runs"
    charts.show_selectable(figure, table, f"sweep-{view}", alt, _open)
    _best(table[front].sort_values(y))


def _measure(table: pd.DataFrame, metrics: list[str]) -> str:
    """Which number is drawn. Seeds draw windows of their own, which only a ratio to the dense model makes alike."""
    alike = (table.groupby("checkpoint")["dense_average"].nunique() == 1).all()
    default = "average" if alike else "ratio"
    return links.choose(
        "Measure", "measure", metrics, default, show=lambda name: figures.AXES[name],
        help="Each seed draws texts of its own, some harder than others; over the dense model's perplexity on the same "
        "text, runs of different seeds compare.",
    )  # fmt: skip


def _best(front: pd.DataFrame) -> None:
    """The front as text, with a way to each run for those who cannot click."""
    charts.title("On the front")
    rows = [
        [
            row.method, row.structure, row.checkpoint, row.order, str(row.seed), percent(row.kept),
            compact(row.average), compact(row.dense_average), signed(row.backward_transfer),
        ]
        for row in front.head(_SHOWN).itertuples()
    ]  # fmt: skip
    columns = [
        "Method",
        "Structure",
        "Checkpoint",
        "Order",
        "Seed",
        "Bytes kept",
        "Average",
        "Dense",
        "Backward transfer",
    ]
    charts.text_table(columns, rows, "Runs on the Pareto front")
    if len(front) > _SHOWN:
        st.caption(f"{len(front) - _SHOWN} more are in the table below the figure.")
    names = {
        row.run: f"{row.method}, {row.structure}, seed {row.seed}: {compact(row.average)}"
        for row in front.itertuples()
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "One of them", list(names), key="sweep-open", format_func=lambda run: names[run]
        )
        st.button("Open", key="open-run", on_click=_follow, args=(chosen,), icon=":material/open_in_new:")


def _multiples(table: pd.DataFrame) -> None:
    metrics = [name for name in ("average", "ratio", "backward_transfer") if table[name].notna().any()]
    metric = _measure(table, metrics)
    panels = list(table.groupby(["checkpoint", "order"], sort=False))
    levels = [figures.dense_level(part, metric) for _, part in panels]
    dense = metric != "backward_transfer" and any(level is not None for level in levels)
    charts.method_key(list(dict.fromkeys(table["method"])), dense=dense)
    st.caption(
        f"{plain(figures.shape_key(table))}. Points: runs. Lines: mean over seeds. All panels have one scale. Click a "
        "point to open its run."
    )
    values = [*table[metric].dropna().astype(float), *(level for level in levels if level is not None)]
    limits, shapes = (min(values), max(values)), figures.shapes_of(table)
    places: list[Any] = []
    while len(places) < min(len(panels), _PANELS):
        places += st.columns(min(3, len(panels)), gap="medium")
    for number, (place, (names, part)) in enumerate(zip(places, panels, strict=False), start=1):
        with place:
            charts.title(plain(f"{names[0]}: {names[1]}"))
            figure = figures.multiples_figure(part, metric, limits, shapes)
            alt = f"{figures.AXES[metric]} against bytes kept, panel {number} of {len(panels)}"
            charts.show_selectable(figure, part, f"panel-{number}", alt, _open)
    if len(panels) > _PANELS:
        st.caption(
            f"{len(panels) - _PANELS} more panels are left out; filter by checkpoint or order to see them."
        )


def _open(point: dict[str, Any]) -> None:
    data = point.get("customdata")
    if data:
        _follow(str(data[0]))


def _follow(run: str) -> None:
    """Leave for the run once the page has run."""
    links.write("run", run)
    st.session_state[_GO] = True


def _stamp(group: Group) -> None:
    protocol = group.members[0].settings().protocol
    words = f"calibration {protocol.calibration} · evaluation {protocol.evaluation} · {protocol.propagate} propagation"
    st.caption(f"Protocol: {plain(words.replace('x', '×'))} · checkpoint, order and seed as shown")
