"""Groups of runs: the band over seeds and calibration sizes, and how much the order of domains matters."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.analysis import bands
from copal_core.experiment import group_loop
from copal_core.figures import groups as figures
from copal_core.figures.numbers import compact
from copal_core.store.groups import Group, Groups, described
from copal_core.store.folder import ACTIVE, status_of
from copal_core.store.run_store import RunStore
from copal_core.methods.wording import removed
from pages.runs import group_form
from pages.shared import actions, charts, links
from pages.shared.text import empty_state, plain, show_problem
from pages.shared.words import GLOSSARY

_METRIC_HELP = {"average": "perplexity", "ratio": "perplexity", "backward_transfer": "bwt"}
_COMPARED = 6


def seeds() -> None:
    """The same run over several seeds and calibration sizes."""
    _show("repeat", "runs")


def orders() -> None:
    """The same run over several orders of its domains."""
    _show("orders", "orders")


def _show(kind: str, what: str) -> None:
    actions.say_outcome()
    found = [group for group in Groups().list() if group.kind == kind]
    with st.expander("Start one", expanded=not found, key=f"start-{kind}"):
        group_form.show(kind)
    if not found:
        words = {
            "repeat": "Repeat a run over a few seeds: whether a gap between methods is more than chance shows here.",
            "orders": "Run the same domains in other orders: how much the order matters shows here.",
        }
        empty_state("Nothing repeated yet" if kind == "repeat" else "No orders yet", words[kind])
        return
    by_id = {group.id: group for group in found}
    group = by_id[links.choose("Group", "group", list(by_id), show=lambda name: _line(by_id[name]))]
    _status(group)
    finished = group.finished()
    if len(finished) < 2:
        empty_state("Not enough runs yet", "The figure appears once two runs of the group are finished.")
    else:
        _results(group, bands.outcomes(finished), what, finished[0])
    _members(group)
    st.button(
        "Delete the group",
        key="discard-group",
        icon=":material/delete:",
        on_click=_discard,
        args=(group,),
        disabled=group_loop.is_active(group),
        help="Moves its runs into the trash. The group is back as soon as one of them is.",
    )


def _discard(group: Group) -> None:
    def move() -> bool:
        group_loop.discard(group)
        return True

    if actions.attempt(move, done="The group's runs are in the trash."):
        links.write("group", None)


def _line(group: Group) -> str:
    kind = "runs" if group.kind == "repeat" else "orders"
    return (
        f"{group.created[:16].replace('T', ' ')} · {group.title or group.base} · {len(group.members)} {kind}"
    )


def _status(group: Group) -> None:
    state = group.state()
    if state.status in ACTIVE:
        _live(group)
    elif state.status != "done":
        if state.message:
            show_problem(f"This group is {state.status}: {state.message}")
        st.button(
            "Resume the group", key="resume-group", icon=":material/play_arrow:", type="primary",
            on_click=actions.attempt, args=(group_loop.start, group),
        )  # fmt: skip


@st.fragment(run_every=2)
def _live(group: Group) -> None:
    state = group.state()
    if state.status not in ACTIVE:
        st.rerun()
    done, share = group_loop.progress(group)
    if st.session_state.setdefault(f"drawn-{group.id}", done) != done:
        st.session_state[f"drawn-{group.id}"] = done
        st.rerun()  # one more run for the figure
    st.progress(share, text=f"{done} of {len(group.members)} runs done, one after another")
    if state.message.startswith("waiting"):
        st.caption(plain(state.message))
    actions.say_while_watching()
    waiting = group.cancel_requested()
    st.button(
        "Cancelling after this block" if waiting else "Cancel the group", key="cancel-group", disabled=waiting,
        icon=":material/stop_circle:", on_click=actions.attempt, args=(group_loop.cancel, group),
    )  # fmt: skip


def _results(group: Group, table: pd.DataFrame, what: str, first: RunStore) -> None:
    metric = links.choose("Measure", "measure", list(bands.METRICS), show=lambda name: bands.METRICS[name])
    if not table[metric].notna().any():
        empty_state("Needs two domains", "With one domain nothing can be forgotten.")
        return
    spread = bands.spread(table, metric)
    _verdicts(table, metric, what)
    sizes = spread["windows"].nunique()
    if sizes > 1:
        charts.title("By calibration size (lower is better)", help=GLOSSARY[_METRIC_HELP[metric]])
        st.caption("Lines: mean over the seeds. Bands: from the lowest to the highest seed.")
        charts.method_key([name for name in dict.fromkeys(spread["method"]) if name != "dense"])
        figure = figures.band_figure(spread, metric)
        charts.show(
            figure,
            spread,
            f"bands-{group.kind}",
            f"{bands.METRICS[metric]} by calibration windows and method",
        )
    for number, (size, part) in enumerate(table.groupby("calibration", sort=False), start=1):
        runs_drawn = part["run"].nunique()
        charts.title(_strip_title(group, plain(str(size).replace("x", "×")), runs_drawn, sizes))
        st.caption("Dots: runs. Bars: from the lowest to the highest. Ticks: means.")
        column = "order" if group.kind == "orders" else "seed"
        figure = figures.strip_figure(part, metric, column)
        alt = f"{bands.METRICS[metric]} of {runs_drawn} {what}, by method"
        charts.show(figure, part, f"strip-{group.kind}-{number}", alt)
    _table(spread, sizes > 1, group.kind == "repeat")
    st.caption(plain(_stamp(group, first)))


def _strip_title(group: Group, size: str, count: int, sizes: int) -> str:
    if group.kind == "orders":
        return f"{count} orders of the same domains (lower is better)"
    return f"{count} seeds{f', calibration {size}' if sizes > 1 else ''} (lower is better)"


def _verdicts(table: pd.DataFrame, metric: str, what: str) -> None:
    """Neighbours in the ranking, in words; at the largest calibration size where there are several."""
    largest = table[table["windows"] == table["windows"].max()]
    words = "seeds" if what == "runs" else what
    sentences = [gap.in_words(words) for gap in bands.neighbours(bands.gaps(largest, metric))][:_COMPARED]
    if what == "orders":
        sentences = [*bands.order_in_words(table, metric), *sentences]
    with st.container(border=True):
        title = (
            "How much does the order matter?" if what == "orders" else "Is the gap between methods chance?"
        )
        st.markdown(f"**{title}**")
        for sentence in sentences:
            st.markdown(f"- {plain(sentence)}")
        if not sentences:
            st.markdown("One method has no gap to another. Repeat a run with two methods or more.")
        elif what == "runs":
            st.caption(
                "Each seed draws its own calibration and evaluation windows. The methods of one run share them, so "
                "that gaps are taken run by run."
            )


def _table(spread: pd.DataFrame, with_size: bool, with_interval: bool) -> None:
    """The spread in numbers. with_interval: the runs are a sample; all orders of domains are none."""
    rows = []
    for row in spread.itertuples():
        interval = [f"{compact(row.low)} to {compact(row.high)}" if row.runs > 1 else "–"]
        size = [str(row.calibration).replace("x", "×")] if with_size else []
        rows.append(
            [
                "dense model" if row.method == "dense" else row.method,
                *size,
                str(row.runs),
                *(compact(value) for value in (row.mean, row.least, row.most, row.range)),
                *(interval if with_interval else []),
            ]
        )
    size_name = ["Calibration"] if with_size else []
    columns = [
        "Method",
        *size_name,
        "Runs",
        "Mean",
        "Lowest",
        "Highest",
        "Spread",
        *(["95 % interval of the mean"] if with_interval else []),
    ]
    charts.text_table(columns, rows, "Spread of each method over the runs of the group")


def _stamp(group: Group, first: RunStore) -> str:
    """The protocol of the whole group: what its runs share, and what they differ in."""
    configs = [member.settings() for member in group.members]
    seeds_used = sorted({config.protocol.seed for config in configs})
    stamp = first.protocol_stamp()
    if len(seeds_used) > 1:
        named = f"seeds {seeds_used[0]} to {seeds_used[-1]}"
        stamp = stamp.replace(f"seed {first.config.protocol.seed}", named)
    sizes = list(dict.fromkeys(str(config.protocol.calibration) for config in configs))
    if len(sizes) > 1:
        mine = f"calibration {first.config.protocol.calibration}".replace("x", "×")
        stamp = stamp.replace(mine, f"calibration {', '.join(sizes)}".replace("x", "×"))
    return f"Protocol: {stamp}, removed {removed(first.config)}"


def _members(group: Group) -> None:
    with st.expander(
        f"The {len(group.members)} runs of this group", type="compact", key=f"members-{group.id}"
    ):
        for number, member in enumerate(group.members, start=1):
            store = group.store_of(member)
            with st.container(horizontal=True, vertical_alignment="center"):
                status = "waiting" if store is None else status_of(store)
                st.markdown(f"{number}. {plain(described(member.settings(), group.kind))}", width="stretch")
                st.caption(status, width="content")
                if store is not None:
                    st.button(
                        "Open",
                        key=f"member-{number}",
                        on_click=_open_member,
                        args=(store.id,),
                        type="tertiary",
                    )


def _open_member(run_id: str) -> None:
    links.write("run", run_id)
    links.write("view", "list")
