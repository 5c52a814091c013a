"""The form that starts a group: a run repeated over seeds, sizes or orders, or a grid; where, and at what cost."""

from __future__ import annotations

import math

import streamlit as st

from copal_core.checkpoints import catalogue
from copal_core.config import Method, RunConfig, Structure, Windows
from copal_core.errors import CopalError
from copal_core.experiment import cluster, groups, preflight
from copal_core.figures.numbers import duration, several, size
from copal_core.store import variations
from copal_core.store.groups import Groups
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary
from copal_core.system import sharing
from pages.shared import actions, checkpoints, draft, links, words
from pages.shared.text import empty_state, plain, show_error, show_problem
from pages.shared.words import GLOSSARY

_KINDS = {"seeds": "Seeds and sizes", "orders": "Orders of domains", "grid": "Grid"}
_MOST = 64  # seeds or orders that the form offers; the command line takes more
_COUNTS = (4, 8, 16, 32, 64, 128)
_STRUCTURES = ("removed 30 %", "removed 40 %", "removed 50 %", "removed 60 %", "removed 70 %", "2:4", "4:8")
_SHARES = (10, 20, 30, 40, 50)  # per cent of the hidden neurons
_METHODS = ("copal:accumulate", "wanda:restart", "magnitude:restart")


def show(expanded: bool) -> None:
    """The form, folded unless `expanded`."""
    with st.expander("Start a group", expanded=expanded, key="start-group"):
        st.session_state.setdefault("group-kind", "grid")
        kind = st.segmented_control(
            "Varied", list(_KINDS), required=True, format_func=_KINDS.__getitem__, key="group-kind"
        )
        try:
            base = None if kind == "grid" else _base(kind)
            if kind == "grid":
                configs = _grid()
            elif base is None:
                return
            else:
                configs = _seeds(base) if kind == "seeds" else _orders(base)
            if configs:
                _offer(kind, configs, base)
        except CopalError as error:
            show_error(error)


# -- a run repeated ------------------------------------------------------------------------------------


def _base(kind: str) -> RunStore | None:
    known = [run for run in Runs().list() if not run.group and (kind == "seeds" or len(run.domains) > 1)]
    if not known:
        empty_state("No run to repeat", "Go to **Prune** and start a run; its settings are repeated here.")
        return None
    by_id = {run.id: run for run in known}
    linked = links.read("run")
    chosen = st.selectbox(
        "Repeat the settings of",
        list(by_id),
        index=list(by_id).index(linked) if linked in by_id else 0,
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
        count = st.number_input("Seeds", 1, _MOST, 5, key="seed-count", help=GLOSSARY["seed"])
    with right:
        counts = st.multiselect(
            f"Calibration windows of {own.length} tokens",
            sorted({*_COUNTS, own.count}),
            default=[own.count],
            key=f"sizes-{store.id}",
            help="One: seeds alone. Several: how much text the methods need.",
        )
    sizes = [Windows(count=number, length=own.length) for number in sorted(counts)]
    return variations.seeds(store.config, int(count or 1), sizes)


def _orders(store: RunStore) -> list[RunConfig]:
    possible = math.factorial(len(store.config.domains))
    if possible <= 2:
        return variations.orders(store.config)
    left, right = st.columns(2)
    with left:
        count = st.number_input(
            f"Orders, of {possible:,} there are", 2, min(_MOST, possible), min(6, possible), key="order-count"
        )
    with right:
        drawn = st.number_input(
            "Seed of the draw", 0, 2**31 - 1, 0, key="order-seed", disabled=count == possible
        )
    return variations.orders(store.config, int(count or 2), int(drawn or 0))


# -- a grid --------------------------------------------------------------------------------------------


def _grid() -> list[RunConfig]:
    values = draft.values()
    known = [one.name for one in catalogue() if one.available]
    names = [*known, *([values["checkpoint"]] if values["checkpoint"] not in known else [])]
    st.caption(
        f"Domains and windows are those of **Domains** and **Prune**: {plain(', '.join(values['domains']))}."
    )
    left, right = st.columns(2)
    with left:
        chosen = st.multiselect("Checkpoints", names, default=[values["checkpoint"]], key="sweep-checkpoints")
        named = st.multiselect("Methods", _methods(), default=list(_METHODS), key="sweep-methods")
        methods = _with_shares(named)
    with right:
        structures = st.multiselect(
            "Structures", _STRUCTURES, default=list(_STRUCTURES[2:3]), key="sweep-structures",
            help=f"{GLOSSARY['structure']} Low rank takes the bytes that the structure leaves.",
        )  # fmt: skip
        count, ordered = _repeats(len(values["domains"]))
    if not (chosen and methods and structures and values["domains"]):
        st.caption("Choose at least one domain, one checkpoint, one method and one structure.")
        return []
    first = int(values["seed"] or 0)
    return variations.Grid(
        checkpoints=chosen,
        domains=values["domains"],
        methods=methods,
        structures=[one for text in structures for one in _structure(text)],
        seeds=range(first, first + count),
        orders=ordered,
        protocol=draft.protocol(),
    ).configs()


def _repeats(domains: int) -> tuple[int, int]:
    """How many seeds and orders."""
    left, right = st.columns(2)
    with left:
        count = st.number_input("Seeds", 1, _MOST, 2, key="sweep-seeds", help=GLOSSARY["seed"])
    with right:
        most = min(120, math.factorial(min(domains, 6)))
        ordered = st.number_input(
            "Orders", 1, max(1, most), 1, key="sweep-orders",
            help="Orders of the domains: the given one first, then random ones.",
        )  # fmt: skip
    return int(count or 1), int(ordered or 1)


def _methods() -> list[str]:
    """Every mask, decomposition and neuron selector with every strategy."""
    names = [*words.criteria(), *words.decompositions(), *words.neuron_selectors()]
    return [f"{name}:{strategy}" for name in names for strategy in words.strategies()]


def _with_shares(named: list[str]) -> list[Method]:
    """The chosen methods; those that remove neurons once for each share, which is asked for where one is chosen."""
    selectors = words.neuron_selectors()
    chosen = [Method.parse(text) for text in named]
    if not any(method.name in selectors for method in chosen):
        return chosen
    shares = st.multiselect(
        "Neurons removed", _SHARES, default=_SHARES[:1], format_func=lambda share: f"{share} %",
        key="sweep-shares", help=GLOSSARY["hidden neuron"],
    )  # fmt: skip
    st.caption("Neuron methods have these shares, not the structures: each share is computed once.")
    found = []
    for method in chosen:
        if method.name in selectors:
            options = [{**method.options, "share": share / 100} for share in shares]
            found += [Method(name=method.name, strategy=method.strategy, options=one) for one in options]
        else:
            found.append(method)
    return found


def _structure(text: str) -> list[Structure]:
    if text.startswith("removed"):
        return variations.structures(["unstructured"], [int(text.split()[1]) / 100])
    return variations.structures([text], [])


# -- starting ------------------------------------------------------------------------------------------


def _offer(kind: str, configs: list[RunConfig], base: RunStore | None) -> None:
    where = _where(2 if kind == "grid" else 1)
    words_ = several(len(configs), "run")
    known = {name: checkpoints.described(name) for name in {config.checkpoint for config in configs}}
    each = [preflight.estimate(config, one) for config in configs if (one := known[config.checkpoint])]
    if len(each) == len(configs):
        # what only a branch needs is dropped after each run; the estimate counts it, and so is an upper bound
        disk = size(sum(one.disk_bytes for one in each))
        words_ += f": about {duration(60 * sum(one.minutes for one in each))} here and at most {disk} of disk"
        for problem in dict.fromkeys(problem for one in each for problem in one.problems):
            show_problem(problem)
    st.caption(f"{words_}. They go on when this page is closed.")
    st.button(
        "Start", type="primary", key="begin-group", on_click=_start, icon=":material/play_arrow:",
        args=(configs, where, base),
    )  # fmt: skip
    if base is not None:
        command, option = "orders", f"--orders {len(configs)}"
        if kind == "seeds":
            command, option = "repeat", f"--seeds {len({one.protocol.seed for one in configs})}"
        st.caption(f"On the command line: {plain(f'python -m copal_core {command} {base.id} {option}')}")


def _where(default: int) -> cluster.Cluster | None:
    """The cluster that computes; None for one run after another here, as always on a shared server.

    default: how many runs at the same time.
    """
    if sharing.enabled():
        return None
    if not cluster.available():
        st.caption(
            "Computed here, one run after another. Several at the same time need Ray, which is optional: "
            "`pip install -r requirements-cluster.txt`"
        )
        return None
    left, right = st.columns(2)
    with left:
        workers = st.number_input(
            "At the same time", 1, 64, default, key=f"workers-{default}",
            help="1: one run after another, with all threads. More: on Ray, with one thread each.",
        )  # fmt: skip
    with right:
        address = st.text_input(
            "Ray address", "", key="sweep-address", placeholder="empty: this machine", max_chars=200,
            help="Of a cluster that runs already, such as 10.0.0.5:6379. Its nodes need this product installed.",
        ).strip()  # fmt: skip
    count = int(workers or 1)
    return cluster.Cluster(address, count) if address or count > 1 else None


def _start(configs: list[RunConfig], where: cluster.Cluster | None, base: RunStore | None) -> None:
    def begin() -> str:
        title = str(base.info.get("title") or base.id) if base is not None else ""
        group = Groups().create(configs, base, title)
        groups.start(group, where)
        return group.id

    group_id = actions.attempt(begin, done=f"{len(configs)} runs are on their way.")
    if group_id is not None:
        links.write("group", group_id)
