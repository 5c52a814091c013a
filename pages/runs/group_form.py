"""Starting a group: which run is repeated, over which seeds, calibration sizes or orders, and what it costs."""

from __future__ import annotations

import math

import streamlit as st

from copal_core.experiment import group_loop, preflight
from copal_core.config import RunConfig, Windows
from copal_core.errors import CopalError
from copal_core.figures.numbers import duration, several, size
from copal_core.store.groups import Groups, MOST, orders, seeds
from copal_core.store.runs import RunSummary, Runs
from copal_core.store.run_store import RunStore
from pages.shared import actions, checkpoints, links
from pages.shared.text import empty_state, plain, show_error, show_problem
from pages.shared.words import GLOSSARY

_COUNTS = (4, 8, 16, 32, 64, 128)


def show(kind: str) -> None:
    """The form of one kind of group."""
    store = _base(kind)
    if store is None:
        return
    try:
        configs = _seeds(store) if kind == "repeat" else _orders(store)
        if configs:
            _offer(kind, store, configs)
    except CopalError as error:
        show_error(error)


def _base(kind: str) -> RunStore | None:
    known = [run for run in Runs().list() if not run.group and (kind == "repeat" or len(run.domains) > 1)]
    if not known:
        empty_state("No run to repeat", "Go to **Prune** and start a run; its settings are repeated here.")
        return None
    by_id = {run.id: run for run in known}
    linked = links.read("run")
    default = list(by_id).index(linked) if linked in by_id else 0
    chosen = st.selectbox(
        "Repeat the settings of",
        list(by_id),
        index=default,
        key=f"base-{kind}",
        format_func=lambda name: _name(by_id[name]),
    )
    return Runs().open(chosen)


def _name(run: RunSummary) -> str:
    return f"{run.title or run.id} · {' → '.join(run.domains)} · {several(len(run.methods), 'method')}"


def _seeds(store: RunStore) -> list[RunConfig]:
    own = store.config.protocol.calibration
    left, right = st.columns(2)
    with left:
        count = st.number_input("Seeds", 1, MOST, 5, key="seed-count", help=GLOSSARY["seed"])
    with right:
        counts = st.multiselect(
            f"Calibration windows of {own.length} tokens",
            sorted({*_COUNTS, own.count}),
            default=[own.count],
            key=f"sizes-{store.id}",
            help="One: seeds alone. Several: how much text the methods need.",
        )
    sizes = [Windows(count=number, length=own.length) for number in sorted(counts)]
    return seeds(store.config, int(count or 1), sizes)


def _orders(store: RunStore) -> list[RunConfig]:
    possible = math.factorial(len(store.config.domains))
    if possible <= 2:
        return orders(store.config)
    left, right = st.columns(2)
    with left:
        count = st.number_input(
            f"Orders, of {possible:,} there are", 2, min(MOST, possible), min(6, possible), key="order-count"
        )
    with right:
        drawn = st.number_input(
            "Seed of the draw", 0, 2**31 - 1, 0, key="order-seed", disabled=count == possible
        )
    return orders(store.config, int(count or 2), int(drawn or 0))


def _offer(kind: str, store: RunStore, configs: list[RunConfig]) -> None:
    description = checkpoints.described(store.config.checkpoint)
    words = f"{len(configs)} runs, one after another"
    if description is not None:
        each = [preflight.estimate(config, description) for config in configs]
        # what only a branch needs is dropped after each run; the estimate counts it, and so is an upper bound
        disk = sum(one.disk_bytes for one in each)
        words += f": about {duration(60 * sum(one.minutes for one in each))} and at most {size(disk)} of disk"
        for problem in dict.fromkeys(problem for one in each for problem in one.problems):
            show_problem(problem)
    st.caption(f"{words}. They go on when this page is closed.")
    st.button(
        "Start", type="primary", key=f"start-group-{kind}", on_click=_start, args=(kind, store, configs),
        icon=":material/play_arrow:",
    )  # fmt: skip
    option = (
        f"--seeds {len({c.protocol.seed for c in configs})}"
        if kind == "repeat"
        else f"--orders {len(configs)}"
    )
    command = "repeat" if kind == "repeat" else "orders"
    st.caption(f"On the command line: {plain(f'python -m copal_core {command} {store.id} {option}')}")


def _start(kind: str, store: RunStore, configs: list[RunConfig]) -> None:
    def begin() -> str:
        group = Groups().create(kind, configs, store, str(store.info.get("title") or store.id))
        group_loop.start(group)
        return group.id

    group_id = actions.attempt(begin, done="The runs are computed one after another.")
    if group_id is not None:
        links.write("group", group_id)
