"""Views of removed neurons: their cost in a run, the smaller model's savings, and how much the choice matters."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.analysis.results import perplexity_matrix
from copal_core.export import smaller
from copal_core.figures import neurons as figures
from copal_core.figures.numbers import compact, count, percent, size
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.neurons import form
from pages.shared import charts, links, runs, tasks
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_MUTUAL = "mutual-information"


def shares(store: RunStore) -> None:
    """Share removed against perplexity of each domain; then the smaller model's bytes and speed."""
    step = _step(store)
    table = figures.share_table(store.config, runs.table(store, "perplexity"), store.domains, step)
    if not len(table):
        _nothing_yet(store)
        return
    row = perplexity_matrix(runs.table(store, "perplexity"), "dense", store.domains)[0]
    dense = dict(zip(store.domains, row.tolist(), strict=True))
    st.markdown(_verdict(table))
    charts.method_key(list(dict.fromkeys(table["method"])))
    places = charts.places(len(store.domains))
    for index, (place, domain) in enumerate(zip(places, store.domains, strict=True)):
        with place:
            charts.title(
                f"{index + 1}. {plain(domain)} (perplexity, lower is better)", help=GLOSSARY["perplexity"]
            )
            part = table[table["domain"] == domain]
            name = f"share-{index + 1}"
            alt = f"Perplexity on domain {index + 1} by share of neurons removed"
            charts.show(figures.share_figure(table, dense, domain), part, name, alt)
    runs.stamp(store)
    _savings(store, step)


def _step(store: RunStore) -> int:
    """The step that is looked at; the last by default."""
    steps = list(range(1, len(store.domains) + 1))
    if len(steps) == 1:
        return 1
    return links.choose(
        "After domain", "step", steps, steps[-1], show=lambda number: runs.step_name(store, number),
        help="Which domain's step is shown. Under restart the neurons are chosen on this domain's text alone.",
    )  # fmt: skip


def _nothing_yet(store: RunStore) -> None:
    if any(method.name in form.neuron_selectors() for method in store.config.methods):
        empty_state("Not measured yet", "Each method appears here once this step has been evaluated.")
        return
    empty_state(
        "This run removes no neurons",
        "Choose another run above, or start one below: on **tiny** it takes a minute or two.",
    )


def _verdict(table: pd.DataFrame) -> str:
    """Where mutual information stands at the share nearest to a tenth, whichever way it falls."""
    share = min(sorted(set(table["share"])), key=lambda value: abs(value - 0.1))
    ranked = figures.standing(table, share)
    names = ranked["method"].tolist()
    mutual = next((name for name in names if name.startswith(_MUTUAL)), None)
    if mutual is None or len(names) < 2:
        return f"With {percent(share)} of the neurons removed."
    at = names.index(mutual)
    if at == 0:
        above = ranked["perplexity"][1] / ranked["perplexity"][0] - 1
        return (
            f"With {percent(share)} of the neurons removed, **{plain(mutual)}** has the lowest average perplexity; "
            f"next is {plain(names[1])}, {percent(above)} above it."
        )
    above = ranked["perplexity"][at] / ranked["perplexity"][0] - 1
    return (
        f"With {percent(share)} of the neurons removed, **{plain(names[0])}** has the lowest average perplexity; "
        f"{plain(mutual)} is number {at + 1} of {len(names)}, {percent(above)} above it."
    )


def _savings(store: RunStore, step: int) -> None:
    """Neurons, bytes, and measured speed at each share."""
    st.subheader("What the smaller model saves", help=GLOSSARY["hidden neuron"])
    records = runs.table(store, "neurons")
    records = records[records["step"] == step]
    by_share: dict[float, str] = {}
    for method in store.config.methods:
        if method.name in form.neuron_selectors() and str(method) in set(records["method"]):
            by_share.setdefault(float(method.options.get("share", 0.1)), str(method))
    if not by_share:
        return
    share = links.choose(
        "Neurons removed", "share", sorted(by_share), 0.1, show=lambda value: percent(value),
        help="Every selector removes equally many, so that one measurement stands for all of them.",
    )  # fmt: skip
    method = by_share[share]
    part = records[records["method"] == method]
    removed, total = int(part["removed"].sum()), int(part["neurons"].sum())
    st.markdown(
        f"{removed:,} of {total:,} hidden neurons go. The smaller model is a stock LLaMA checkpoint: "
        "`python -m copal_core export` writes it."
    )
    _speed(store, method, step)


def _speed(store: RunStore, method: str, step: int) -> None:
    arguments = ("measure_smaller", store.id, method, step)
    if tasks.at_work(tasks.find(*arguments)):
        return
    found = smaller.known(store, method, step)
    if found is None:
        st.caption(
            "Tokens a second are measured on this machine, the two models by turns; under a minute on two cores."
        )
        st.button(
            "Measure", key="measure-smaller", on_click=tasks.start, args=arguments, icon=":material/speed:"
        )
        return
    labels = {"dense": "dense model", "smaller": "without these neurons"}
    rows = [
        [
            label, count(found[name]["parameters"]), size(found[name]["bytes"]), compact(found[name]["prefill"]),
            compact(found[name]["decode"]),
        ]
        for name, label in labels.items()
    ]  # fmt: skip
    columns = ["Model", "Parameters", "Bytes at 16 bits", "Prefill, tokens/s", "Decode, tokens/s"]
    charts.text_table(columns, rows, "Size and speed of the dense and the smaller model")
    gain = {side: 100 * (found["smaller"][side] / found["dense"][side] - 1) for side in ("prefill", "decode")}
    reading, writing = (f"{gain[side]:+.0f} %".replace("-", "−") for side in ("prefill", "decode"))
    st.caption(
        f"The embedding counts too, and stays. Reading {reading}, writing {writing}: medians of five turns "
        "each, the models taking turns. Small differences are within what a busy machine varies."
    )


def choice(store: RunStore) -> None:
    """The paper's finding: the spread between criteria, over every checkpoint there are comparable runs of."""
    st.markdown(
        "Published finding (arXiv 2406.00030): **which** criterion chooses the neurons matters more for small models "
        "than for large ones. Below, as far as the runs on this machine go."
    )
    table, left_out = _spreads(store)
    if not len(table):
        empty_state(
            "Nothing to compare yet",
            "This needs a finished run with two criteria besides the random one at the same share. Start it below.",
        )
        return
    charts.title("How far apart the criteria are", help=GLOSSARY["spread"])
    charts.show(
        figures.spread_figure(table), table, "spread", "Spread between criteria by size of the checkpoint"
    )
    st.markdown(plain(figures.finding(table)))
    st.caption(
        f"Averages over {plain(', '.join(store.domains))} after the last domain, in runs under this one's protocol. "
        + (f"{left_out} runs under other protocols are left out." if left_out else "")
    )
    runs.stamp(store)


def _spreads(store: RunStore) -> tuple[pd.DataFrame, int]:
    """One row a checkpoint and share, of the newest run of each; and how many runs are not comparable."""
    rows: dict[tuple[str, float, str], dict[str, object]] = {}
    left_out = 0
    for summary in Runs().list():
        if summary.status != "done" or not form.removes_neurons(summary):
            continue
        other = Runs().open(summary.id)
        if _sign(other) != _sign(store):
            left_out += 1
            continue
        perplexity, last = runs.table(other, "perplexity"), len(other.domains)
        table = figures.share_table(other.config, perplexity, other.domains, last)
        checkpoint = other.info.get("checkpoint", {})
        for share in sorted(set(table["share"])):
            part = table[table["share"] == share]
            for strategy, same in part.groupby(part["method"].str.rpartition(":")[2]):
                found = figures.spread_of(figures.standing(same, share))
                place = (str(checkpoint.get("name", summary.checkpoint)), float(share), str(strategy))
                if found is not None and place not in rows:
                    head = {
                        "checkpoint": place[0],
                        "parameters": checkpoint.get("parameters", 0),
                        "share": share,
                    }
                    rows[place] = {**head, **found, "strategy": strategy, "run": summary.id}
    return pd.DataFrame(list(rows.values())), left_out


def _sign(store: RunStore) -> object:
    """Return what must be the same for perplexities to stand in one figure, the checkpoint aside."""
    protocol = store.config.protocol
    windows = (protocol.calibration, protocol.evaluation, protocol.propagate, protocol.seed)
    return store.config.domains, windows, store.info.get("checkpoint", {}).get("dtype")
