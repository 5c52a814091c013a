"""One block's neurons: map of their mutual information, closest pairs, and tokens on which a pair is active."""

from __future__ import annotations

from typing import Any

import streamlit as st

from copal_core.analysis import redundancy
from copal_core.figures import neurons as figures
from copal_core.figures.numbers import compact
from copal_core.store.run_store import RunStore
from pages.shared import charts, links, runs, tasks
from pages.shared.text import plain
from pages.shared.words import GLOSSARY


def one_block(store: RunStore) -> None:
    """Show the choice of a block and a domain, start its analysis, and then show the map and the pairs."""
    with st.container(border=True):
        left, right = st.columns(2)
        with left:
            blocks = list(range(runs.blocks_of(store)))
            block = links.choose("Decoder block", "layer", blocks, len(blocks) // 2)
        with right:
            indices = list(range(len(store.domains)))
            domain = links.choose(
                "Text", "domain", indices, 0, show=lambda index: runs.step_name(store, index + 1)
            )
    analysis = redundancy.find(store, domain, block)
    if analysis is None:
        _offer_analysis(store, domain, block)
        return
    st.caption(
        f"The dense model's {analysis['neurons']:,} hidden neurons of this block on {analysis['tokens']:,} tokens of "
        f"{plain(store.domains[domain])}'s calibration text."
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        charts.title("Mutual information of every two neurons", help=GLOSSARY["information"])
        nats = analysis["map"]
        table = _map_table(nats)
        charts.show(
            figures.map_figure(nats, analysis["neurons"]),
            table,
            "redundancy",
            "Mutual information between neurons",
        )
        st.caption(
            "Neurons that share most are placed next to each other: bright squares along the diagonal are "
            f"groups. Two independent neurons would show {0.5 / analysis['tokens']:.1g} nats by chance."
        )
    with right:
        pair = _pairs(analysis["pairs"], store, block)
    if pair is not None:
        _firing(pair)


def _offer_analysis(store: RunStore, domain: int, block: int) -> None:
    arguments = ("redundancy", store.id, domain, block)
    if tasks.at_work(tasks.find(*arguments)):
        st.caption("You may leave this page; the computation continues.")
        return
    st.caption(
        "This block has not been analysed on this text yet. The analysis passes its windows through the dense model "
        "once: a few seconds for tiny, up to a minute for the last blocks of SmolLM2."
    )
    st.button("Analyse this block", type="primary", key="look-at-block", on_click=tasks.start, args=arguments)


def _map_table(nats: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(nats, columns=[f"group {index + 1}" for index in range(nats.shape[1])])


def _pairs(pairs: list[dict[str, Any]], store: RunStore, block: int) -> dict[str, Any] | None:
    """Show the choice of a pair, its activations and the estimates, and return the chosen pair."""
    charts.title("The most redundant pairs", help=GLOSSARY["information"])
    if not pairs:
        st.caption("There are too few neurons to compare.")
        return None
    names = [f"{pair['one']}-{pair['other']}" for pair in pairs]
    chosen = links.choose(
        "Pair", "pair", names, names[0],
        show=lambda name: f"{name.replace('-', ' and ')}: {compact(pairs[names.index(name)]['information'])} nats",
    )  # fmt: skip
    pair = pairs[names.index(chosen)]
    charts.show(
        figures.pair_figure(pair),
        figures.pairs_table(pairs),
        "pair",
        "Activations of two neurons, one point per token",
    )
    st.caption(
        f"Gaussian copula {compact(pair['information'])} nats, nearest neighbours {compact(pair['neighbours'])} nats. "
        f"{_fate(store, block, pair)}"
    )
    return pair


def _firing(pair: dict[str, Any]) -> None:
    charts.title(
        "Where both are strongest",
        help="By the product of both activations, each divided by its usual size; either sign counts.",
    )
    rows = [
        [
            f"{token['before']}«{token['token']}»{token['after']}",
            compact(token["one"]),
            compact(token["other"]),
        ]
        for token in pair["firing"]
    ]
    columns = ["Token, in «»", f"Neuron {pair['one']}", f"Neuron {pair['other']}"]
    charts.text_table(columns, rows, "Tokens on which both neurons are strongest")


def _fate(store: RunStore, block: int, pair: dict[str, Any]) -> str:
    """State which of the two neurons this run's mutual-information method removed, after the last step."""
    method = next((m for m in map(str, store.config.methods) if m.startswith("mutual-information")), None)
    step = len(store.domains)
    if method is None or not store.has_arrays("neurons", method, step, block):
        return ""
    kept = store.arrays("neurons", method, step, block)["kept"]
    gone = [str(neuron) for neuron in (pair["one"], pair["other"]) if not kept[neuron]]
    words = {0: "kept both", 1: f"removed neuron {gone[0]}" if gone else ""}.get(len(gone), "removed both")
    return f"{plain(method)} {words}."
