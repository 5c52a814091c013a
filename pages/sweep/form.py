"""Starting a sweep: what is combined, how many runs that makes, and what they cost."""

from __future__ import annotations

import math

import streamlit as st

from copal_core.analysis import sweeps
from copal_core.checkpoints import catalogue
from copal_core.config import Method, RunConfig, Structure
from copal_core.errors import CopalError
from copal_core.experiment import cluster, preflight
from copal_core.figures.numbers import duration, several, size
from copal_core.store.groups import Groups
from copal_core.system import sharing
from pages.shared import actions, checkpoints, draft, links, words
from pages.shared.text import plain, show_error, show_problem
from pages.shared.words import GLOSSARY

_STRUCTURES = ("removed 30 %", "removed 40 %", "removed 50 %", "removed 60 %", "removed 70 %", "2:4", "4:8")
_SHARES = (10, 20, 30, 40, 50)  # per cent of the hidden neurons
_METHODS = ("copal:accumulate", "wanda:restart", "magnitude:restart")


def show(expanded: bool) -> None:
    """The form; without Ray, how to get it."""
    with st.expander("Start a sweep", expanded=expanded, key="start-sweep"):
        if not cluster.available():
            st.markdown("A sweep needs Ray, which is optional: `pip install -r requirements-cluster.txt`")
            return
        try:
            configs = _grid()
            if configs:
                _offer(configs)
        except CopalError as error:
            show_error(error)


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
    return sweeps.Grid(
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
        count = st.number_input("Seeds", 1, 64, 2, key="sweep-seeds", help=GLOSSARY["seed"])
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
        return sweeps.structures(["unstructured"], [int(text.split()[1]) / 100])
    return sweeps.structures([text], [])


def _offer(configs: list[RunConfig]) -> None:
    where = _where()
    words_ = several(len(configs), "run")
    known = {name: checkpoints.described(name) for name in {config.checkpoint for config in configs}}
    each = [preflight.estimate(config, one) for config in configs if (one := known[config.checkpoint])]
    if len(each) == len(configs):
        disk = size(sum(one.disk_bytes for one in each))
        words_ += f": about {duration(60 * sum(one.minutes for one in each))} here and at most {disk} of disk"
        for problem in dict.fromkeys(problem for one in each for problem in one.problems):
            show_problem(problem)
    st.caption(f"{words_}. They go on when this page is closed.")
    st.button(
        "Start", type="primary", key="begin-sweep", on_click=_start, icon=":material/play_arrow:",
        args=(configs, where),
    )  # fmt: skip


def _where() -> cluster.Cluster:
    """Who computes; on a shared server this machine, one run after another."""
    if sharing.enabled():
        return cluster.Cluster(workers=1)
    left, right = st.columns(2)
    with left:
        workers = st.number_input(
            "At the same time", 1, 64, 2, key="sweep-workers",
            help="Runs that are computed at once, with one thread each.",
        )  # fmt: skip
    with right:
        address = st.text_input(
            "Ray address", "", key="sweep-address", placeholder="empty: this machine", max_chars=200,
            help="Of a cluster that runs already, such as 10.0.0.5:6379. Its nodes need this product installed.",
        )  # fmt: skip
    return cluster.Cluster(address.strip(), int(workers or 1))


def _start(configs: list[RunConfig], where: cluster.Cluster) -> None:
    def begin() -> str:
        group = Groups().create(sweeps.KIND, configs)
        cluster.start(group, where)
        return group.id

    group_id = actions.attempt(begin, done=f"{len(configs)} runs are on their way.")
    if group_id is not None:
        links.write("sweep", group_id)
