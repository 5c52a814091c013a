"""A run in its panel: how far it is, the map filling in, and where to look at it once it is finished."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from copal_core.experiment import processes
from copal_core.figures import layers
from copal_core.store.folder import ACTIVE, RunState
from copal_core.store.run_store import RunStore
from pages.shared import job_panel, runs
from pages.shared.text import plain


def panel(store: RunStore) -> None:
    """Draw the run in the link with its map filling in; a recorded one has nothing to watch."""
    if store.recorded:
        return
    with st.container(border=True):
        st.markdown(f"**{plain(store.info.get('title') or 'Your run')}**")
        st.caption(plain(f"{store.id}: {', '.join(runs.methods_of(store))}"))
        state = progress(store, details=partial(_filling_map, store))
        if state.status == "done":
            _finished(store)
        elif state.status not in ACTIVE:
            st.page_link(
                "pages/sensitivity/page.py", label="Look at what there is", icon=":material/grid_on:"
            )


def progress(store: RunStore, key: str = "", details: Callable[[RunState], None] | None = None) -> RunState:
    """Draw how far a run is, with its buttons, and return its state. key, details: see `job_panel.show`."""
    resume = partial(processes.start, store)
    words = partial(_in_words, store)
    return job_panel.show(store, "run", resume, key=key, progress=words, details=details)


def _filling_map(store: RunStore, state: RunState) -> None:
    """Draw the sensitivity of the method at work, block by block as it is computed."""
    if not state.method or state.step < 1:
        return
    if state.method not in runs.mask_methods_of(store):
        st.caption("This method makes no mask to draw; what it cost appears once the run is finished.")
        return
    found = runs.table(store, "layers")
    table = layers.layer_table(found, state.method, state.step, "memory")
    colours = layers.colour_range("memory", table)
    st.caption(
        f"Mean score of each layer, {plain(state.method)} after {plain(runs.step_name(store, state.step))}: "
        f"{table['block'].nunique()} of {runs.blocks_of(store)} blocks"
    )
    figure = layers.layer_figure(table, "memory", colours, runs.blocks_of(store))
    st.plotly_chart(
        figure.update_layout(height=260, uirevision="live"),
        key="live-map",
        config={"displayModeBar": False},
        alt="Heatmap of the layers computed so far",
    )


def _finished(store: RunStore) -> None:
    st.markdown("Finished. Its link is in the address bar.")
    with st.container(horizontal=True, gap="medium"):
        st.page_link("pages/sensitivity/page.py", label="Sensitivity", icon=":material/grid_on:")
        st.page_link("pages/stasis/page.py", label="Stasis and forgetting", icon=":material/trending_up:")
        if runs.neuron_methods_of(store):
            st.page_link("pages/neurons/page.py", label="Neurons", icon=":material/share:")
        if len(runs.mask_methods_of(store) + runs.neuron_methods_of(store)) < len(store.config.methods):
            st.page_link(
                "pages/lowrank/page.py", label="Masks and low rank", icon=":material/compare_arrows:"
            )


def _in_words(store: RunStore, state: RunState) -> tuple[float, str]:
    """Return the share that is done, and phase, method, domain and block in words."""
    if not state.method:
        return job_panel.written_progress(state)
    parts = [state.phase, state.method]
    if state.step:
        parts.append(f"domain {state.step} of {len(store.config.domains)}")
        parts.append(f"block {state.block + 1} of {runs.blocks_of(store)}")
    return state.progress, ", ".join(part for part in parts if part)
