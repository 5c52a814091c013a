"""The whole model at the slider's budget: which layers prefer a mask, and the evaluation of all of it as a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from copal_core.analysis.layers import compared
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.config import Method, RunConfig, Structure
from copal_core.errors import CopalError
from copal_core.experiment import preflight
from copal_core.figures import layers, sizes
from copal_core.figures.numbers import compact, duration, percent
from copal_core.methods import stored_size
from copal_core.statistics.prepared import Entry
from copal_core.store.folder import ACTIVE
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.shared import actions, charts, checkpoints, layer_choice, layer_desk, run_panel, runs
from pages.shared.layer_desk import Setting
from pages.shared.text import empty_state, plain, show_error
from pages.shared.words import GLOSSARY

METHODS = (
    "copal:accumulate",
    "wanda:accumulate",
    "whitened-svd:accumulate",
    "svd:restart",
    "hybrid:accumulate",
)
_PAGE_AGAIN, _CHOSEN = "lowrank-page-again", "evaluated-methods"
BEST = "best"


def preferences(setting: Setting, entry: Entry, share: float, marked: tuple[int, str]) -> None:
    """Heatmap of every layer's preference at `share` of the bytes."""
    st.subheader("Which layers prefer a mask, and which low rank")
    errors = _errors(entry)
    if errors is None:
        count = entry.blocks * len(PROJECTIONS)
        words = (
            f"All {count} layers are compared once, over the whole range of budgets and without a forward pass. "
            f"This takes about {duration(10 + 0.35 * count)}; the map then follows the slider."
        )
        title = "The layers have not been compared yet"
        layer_desk.watch_or_offer("compare", setting, title, words, "Compare all layers")
        return
    left, right = st.columns(2)
    masks, ranked = ([BEST, *_measured(errors, names)] for names in (compared.masks(), compared.RANKED))
    with left:
        mask = st.segmented_control("Mask", masks, default=BEST, required=True, key="map-mask")
    with right:
        low = st.segmented_control("Low rank", ranked, default=BEST, required=True, key="map-low")
    table = _preference_table(errors, str(mask), str(low), share)
    better = int((table["value"] > 0).sum())
    against = "the best mask" if mask == BEST else f"the {mask} mask"
    st.markdown(
        f"At {percent(share, 2)} of the bytes **{better} of {len(table)}** layers lose less with {against}, "
        f"{len(table) - better} with {'the best low rank' if low == BEST else low}."
    )
    charts.title(
        "Low rank's error over the mask's",
        help="Orange: the mask loses less of the layer's output at the same bytes; blue: low rank does. "
        "×2 means low rank loses twice as much. Click a layer to open it above.",
    )
    figure = layers.difference_figure(table, "memory", entry.blocks, marked, most=np.log2(100))
    charts.show_selectable(figure, table, "preferences", "Heatmap of each layer's preference", _open_layer)
    st.caption(
        f"Orange: prefers the mask. Blue: prefers low rank. Protocol: {plain(entry.stamp)}, all domains together"
    )


def _preference_table(errors: dict[str, Any], mask: str, low: str, share: float) -> pd.DataFrame:
    """block, projection, first (mask's error), second (low rank's), value: log2 of second over first."""
    at = int(np.abs(errors["share"] - share).argmin())
    first, second = _error(errors, mask, compared.masks(), at), _error(errors, low, compared.RANKED, at)
    blocks, projections = first.shape
    return pd.DataFrame(
        {
            "block": np.repeat(np.arange(blocks), projections),
            "projection": list(PROJECTIONS) * blocks,
            "first": first.ravel(),
            "second": second.ravel(),
            "value": np.log2(second / first).ravel(),
        }
    ).rename(columns={"first": "mask_error", "second": "low_rank_error"})


def _error(errors: dict[str, Any], name: str, all_of_kind: tuple[str, ...], at: int) -> Any:
    """(blocks, projections) of one method, or of whichever of its kind loses least in each layer."""
    names = _measured(errors, all_of_kind) if name == BEST else [name]
    return np.maximum(np.min([errors[one][:, :, at] for one in names], axis=0), 1e-12)


def _measured(errors: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in errors]


def _errors(entry: Entry) -> dict[str, Any] | None:
    known: dict[str, Any] = st.session_state.setdefault("layer-errors", {})
    if known.get("key") != entry.key or known["errors"] is None:
        known.update(key=entry.key, errors=entry.errors())
    return known["errors"]


def _open_layer(point: dict[str, Any]) -> None:
    layer_choice.follow_click(point)
    st.session_state[_PAGE_AGAIN] = True


def rerun_if_asked() -> None:
    """Run the whole page again when a fragment's button changed what lies outside the fragment."""
    if st.session_state.pop(_PAGE_AGAIN, False):
        st.rerun(scope="app")


def offer(setting: Setting, share: float) -> None:
    """The button that evaluates the whole model at `share` of the bytes."""
    st.subheader("The whole model at this budget")
    st.caption(
        "A layer's error is not the model's. A run applies each method to every layer at the same bytes, domain after "
        "domain, and measures perplexity.",
        help=GLOSSARY["perplexity"],
    )
    actions.say_outcome()
    st.session_state.setdefault(_CHOSEN, list(METHODS))
    chosen = st.pills(
        "Methods to evaluate", METHODS, selection_mode="multi", key=_CHOSEN,
        help="Hybrid: for every layer whichever of mask and whitened-svd loses less. Accumulate: a memory of all "
        "domains so far.",
    )  # fmt: skip
    config = config_at(setting, share, [name for name in METHODS if name in chosen])
    if config is None:
        st.caption("Choose at least one method, and a budget from 10 % to 99 %.")
        return
    cost = _cost(config)
    if cost is not None and not cost.fits:
        for problem in cost.problems:
            show_error(CopalError(problem))
    time = f", about {duration(60 * cost.minutes)}" if cost is not None else ""
    st.button(
        f"Evaluate the whole model at {percent(share, 2)}{time}",
        type="primary",
        key="evaluate-budget",
        on_click=_start,
        args=(config,),
        disabled=cost is not None and not cost.fits,
    )


def config_at(setting: Setting, share: float, methods: list[str]) -> RunConfig | None:
    """The run at `share` of the bytes; None when there is nothing to run."""
    if not methods or share >= 1:
        return None
    return RunConfig(
        checkpoint=setting.checkpoint,
        domains=setting.domains,
        methods=tuple(Method.parse(name) for name in methods),
        structure=Structure(sparsity=round(min(0.999, stored_size.sparsity_at(share)), 6)),
        protocol=setting.protocol,
    )


def _cost(config: RunConfig) -> preflight.Estimate | None:
    description = checkpoints.described(config.checkpoint)
    return preflight.estimate(config, description) if description is not None else None


def _start(config: RunConfig) -> None:
    kept = percent(stored_size.structure_share(config.structure))
    store = actions.attempt(runs.start_new, config, f"Masks and low rank at {kept} of the bytes")
    if store is not None:
        st.session_state[_PAGE_AGAIN] = True


def results(setting: Setting) -> None:
    """Runs of the same checkpoint, domains and protocol: those at work, and a table of size against perplexity."""
    found = _comparable(setting)
    for store in found:
        if store.state().status in ACTIVE:
            _at_work(store)
    st.subheader("Size against perplexity", help=GLOSSARY["bytes"])
    tables = [_sizes(store) for store in found]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(sizes.COLUMNS))
    if not len(table):
        empty_state(
            "No evaluation yet",
            "Evaluate the whole model at a budget; every finished run of this checkpoint, these domains and this "
            "protocol joins the table.",
        )
        return
    dense = _dense(found)
    domains = list(dict.fromkeys(table["domain"]))
    charts.method_key(list(dict.fromkeys(table["method"])))
    charts.title("Average perplexity after the last domain (lower is better)", help=GLOSSARY["perplexity"])
    shown = sizes.wide(table)
    charts.show(sizes.size_figure(table, dense), shown, "sizes", "Perplexity over bytes kept, by method")
    rows = [_line("dense model", 1.0, [dense[name] for name in domains])]
    rows += [
        _line(row["method"], row["kept"], [row[name] for name in domains]) for _, row in shown.iterrows()
    ]
    columns = ["Method", "Bytes kept", *domains, "Average"]
    charts.text_table(columns, rows, "Perplexity at each size, by method and domain")
    for store in found:
        _hybrid_words(store)
    st.caption(f"Protocol: {plain(found[0].protocol_stamp())}")


def _hybrid_words(store: RunStore) -> None:
    """Say what a finished hybrid chose, layer by layer, after the last domain."""
    factors = runs.table(store, "factors")
    last = factors[factors["method"].str.startswith("hybrid") & (factors["step"] == len(store.domains))]
    for method, part in last.groupby("method"):
        kinds = part["kind"].value_counts()
        share = stored_size.structure_share(store.config.structure)
        st.caption(
            f"{plain(method)} at {percent(share)}: {int(kinds.get('mask', 0))} layers became masks, "
            f"{int(kinds.get('rank', 0))} low rank, {int(kinds.get('dense', 0))} stayed dense."
        )


def _line(method: str, share: float, values: list[float]) -> list[str]:
    return [method, percent(share), *(compact(value) for value in [*values, float(np.mean(values))])]


def _comparable(setting: Setting) -> list[RunStore]:
    """Runs whose numbers may stand in one table."""
    found = []
    for summary in Runs().list():
        if summary.checkpoint != setting.checkpoint:
            continue
        store = Runs().open(summary.id)
        if store.config.domains == setting.domains and store.config.protocol == setting.protocol:
            found.append(store)
    return found


def _sizes(store: RunStore) -> pd.DataFrame:
    tables = runs.table(store, "perplexity"), runs.table(store, "factors")
    found = sizes.run_sizes(store.config, store.id, *tables, store.domains)
    return found[~found["method"].isin(runs.neuron_methods_of(store))]  # their sizes are on Neurons


def _dense(stores: list[RunStore]) -> dict[str, float]:
    for store in stores:
        table = runs.table(store, "perplexity")
        dense = table[table["method"] == "dense"]
        if len(dense) == len(store.domains):
            return dict(zip(dense["domain"], dense["perplexity"].astype(float), strict=True))
    return {}


def _at_work(store: RunStore) -> None:
    with st.container(border=True):
        st.markdown(f"**{plain(store.info.get('title') or store.id)}**")
        run_panel.progress(store, key=store.id)
        st.page_link(
            "pages/prune/page.py",
            label="Watch it, block by block",
            icon=":material/content_cut:",
            query_params={"run": store.id},
        )
