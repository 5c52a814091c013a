"""The run that a page looks at, and its records, read once as long as they do not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from copal_core.config import RunConfig
from copal_core.errors import CopalError, InvalidValueError
from copal_core.experiment import processes
from copal_core.figures.numbers import several
from copal_core.methods.describe import removed
from copal_core.store.folder import ACTIVE
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary
from pages.shared import links, words
from pages.shared.text import empty_state, plain, show_error, show_problem

Version = tuple[int, int]
_STATUS = {
    "done": "",
    "running": "running",
    "created": "starting",
    "failed": "failed",
    "cancelled": "cancelled",
}


def open_linked() -> RunStore | None:
    """Return the run named in the link. Raises CopalError when there is no such run."""
    run_id = links.read("run")
    return Runs().open(run_id) if run_id else None


def start_new(config: RunConfig, title: str) -> RunStore:
    """Create a run, start its process and put it into the link. Raises CopalError when one of these fails."""
    store = Runs().create(config, title)
    processes.start(store)
    links.write("run", store.id)
    return store


def pick(preferred: Callable[[RunSummary], bool] = lambda run: True) -> RunStore | None:
    """The run chosen on the page (a recorded one at first), or None with a message when there is none.

    preferred: which runs the page has most to say of; one of them is opened first.
    """
    runs = Runs().list()
    wanted = links.read("run")
    if wanted is not None and wanted not in {run.id for run in runs}:
        show_error(why_not(wanted))
        st.button("Open another run", on_click=links.write, args=("run", None))
        return None
    if not runs:
        empty_state(
            "No runs yet",
            "Choose methods and start a run; it then opens here. On **tiny** it takes seconds.",
            prune="Start a run",
            learn="See what a run shows, in the lesson",
        )
        return None
    by_id = {run.id: run for run in runs}
    chosen = links.choose(
        "Run",
        "run",
        list(by_id),
        _default([run for run in runs if preferred(run)] or runs).id,
        show=lambda run_id: line(by_id[run_id]),
        help="A finished or running run. Its link is in the address bar: send it to open the same view.",
    )
    if wanted is None:
        links.write("run", chosen)
    try:
        store = Runs().open(chosen)
        say_status(store)
        return store
    except CopalError as error:
        show_error(error)
        return None


def say_status(store: RunStore) -> None:
    """One line when the run is not simply finished, and what it warns of."""
    state = store.state()
    if state.status in ACTIVE:
        st.info(
            "This run is still being computed. What is finished is shown; reload for more.",
            icon=":material/sync:",
        )
    elif state.status != "done":
        why = f": {state.message}" if state.message else ""
        show_problem(f"This run is {state.status}{why}. Only finished steps are shown.")


def stamp(store: RunStore) -> None:
    """The protocol, in one line beside every perplexity."""
    st.caption(f"Protocol: {plain(store.protocol_stamp())}, removed {plain(removed(store.config))}")


def table(store: RunStore, name: str) -> pd.DataFrame:
    """perplexity, layers, factors, overlaps, warnings or seconds of a run."""
    return _table(str(store.folder), name, version(store))


def tiles(store: RunStore, method: str, step: int, block: int, projection: str) -> dict[str, Any]:
    """Pooled maps of one layer. Raises RunError when the run has none of it."""
    return _tiles(str(store.folder), method, step, block, projection, version(store))


def version(store: RunStore) -> Version:
    """Return a value that changes whenever the run's records do."""
    return store.records.version()


def methods_of(store: RunStore) -> list[str]:
    return [str(method) for method in store.config.methods]


def mask_methods_of(store: RunStore) -> list[str]:
    """The methods that prune weights; others have factors or whole neurons instead, and no mask to draw."""
    others = {**words.decompositions(), **words.neuron_selectors()}
    return [str(method) for method in store.config.methods if method.name not in others]


def lowrank_methods_of(store: RunStore) -> list[str]:
    """The methods that leave factors."""
    lowrank = words.decompositions()
    return [str(method) for method in store.config.methods if method.name in lowrank]


def neuron_methods_of(store: RunStore) -> list[str]:
    """The methods that remove whole neurons."""
    selectors = words.neuron_selectors()
    return [str(method) for method in store.config.methods if method.name in selectors]


def say_left_out(store: RunStore) -> None:
    """One line where a figure of masks leaves other methods out."""
    left_out = [name for name in methods_of(store) if name not in mask_methods_of(store)]
    removing = neuron_methods_of(store)
    factored = [name for name in left_out if name not in removing]
    if factored:
        st.caption(
            f"Left out, as they have factors and no mask: {plain(', '.join(factored))}. "
            "Their perplexity is on Stasis and forgetting; their layers are on Masks and low rank."
        )
    if removing:
        st.caption(
            f"Left out, as they remove whole neurons and not single weights: {plain(', '.join(removing))}. "
            "Their perplexity is on Stasis and forgetting; their shares and pairs are on Neurons."
        )


def blocks_of(store: RunStore) -> int:
    """Number of decoder blocks, from the run's description, else from its records."""
    described = store.info.get("checkpoint", {}).get("blocks")
    layers = table(store, "layers")
    return int(described or (layers["block"].max() + 1 if len(layers) else 1))


def step_name(store: RunStore, step: int) -> str:
    """A step as people say it: 2. shakespeare."""
    domains = store.domains
    return f"{step}. {domains[step - 1]}" if 1 <= step <= len(domains) else str(step)


def show_warnings(store: RunStore) -> None:
    """Say what a reader should know before believing a figure, folded away."""
    found = table(store, "warnings")
    bad = table(store, "perplexity")
    broken = int(bad["nonfinite_batches"].sum()) if len(bad) else 0
    if broken:
        show_problem(f"{broken} evaluation batches gave NaN or infinity; their perplexity means nothing.")
    if len(found):
        folded = st.expander(f"Warnings from this run: {len(found)}", key="warnings", on_change="rerun")
        if folded.open:
            folded.dataframe(found, hide_index=True)


@st.cache_data(max_entries=40, show_spinner=False)
def _table(folder: str, name: str, changed: Version) -> pd.DataFrame:
    store = RunStore(Path(folder))
    readers = {
        "perplexity": store.perplexity,
        "layers": store.layers,
        "overlaps": store.overlaps,
        "factors": store.factors,
        "neurons": lambda: store.records.table("neurons"),
        "warnings": store.warnings,
        "seconds": store.seconds,
    }
    return readers[name]()


@st.cache_data(max_entries=60, show_spinner=False)
def _tiles(
    folder: str, method: str, step: int, block: int, projection: str, changed: Version
) -> dict[str, Any]:
    return RunStore(Path(folder)).tiles(method, step, block, projection)


def _default(runs: list[RunSummary]) -> RunSummary:
    """The newest finished run of one's own, else a recorded one, else whatever there is."""
    finished = [run for run in runs if run.status == "done"]
    return next((run for run in finished if not run.recorded), (finished or runs)[0])


def line(run: RunSummary) -> str:
    kind = "Recorded" if run.recorded else run.created[:16].replace("T", " ")
    status = _STATUS.get(run.status, run.status)
    domains, methods = several(len(run.domains), "domain"), several(len(run.methods), "method")
    name = run.title or f"{run.checkpoint}, {domains}, {methods}"
    return " · ".join(part for part in (kind, name, status) if part)


def why_not(run_id: str) -> CopalError:
    """Return why a run that the list does not have cannot be opened."""
    try:
        Runs().open(run_id)
    except CopalError as error:
        return error
    return InvalidValueError(f"run '{run_id}' cannot be read; its folder is damaged")
