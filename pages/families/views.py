"""Sizes of a checkpoint against perplexity, one of them from close by, and Basel's bases."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis.results import perplexity_matrix, training_of
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.config import Method
from copal_core.errors import CopalError
from copal_core.export import smaller
from copal_core.figures import bases as bases_figures
from copal_core.figures import sizes
from copal_core.figures.numbers import compact, count, percent, size
from copal_core.methods.describe import trained_words
from copal_core.store.folder import ACTIVE, status_of
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.families import form
from pages.shared import charts, exports, links, runs, tasks
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY


def has_sizes(store: RunStore) -> bool:
    """True for a run with low-rank methods, whose sizes this page can show."""
    return bool(runs.lowrank_methods_of(store))


def show(store: RunStore) -> None:
    """Everything that is finished of a run's sizes and of the runs that compare with it."""
    if not has_sizes(store):
        empty_state(
            "This run has no sizes",
            "Choose another run above, or start one below: on **tiny** it takes a few minutes; on SmolLM2 the better "
            "part of an hour on two cores.",
        )
        return
    dense = _perplexity(store, "dense", 0)
    if not dense:
        empty_state(
            "Nothing measured yet", "The dense model is measured first; it appears here once that is done."
        )
        return
    finished = [name for name in runs.lowrank_methods_of(store) if _perplexity(store, name, _step(store))]
    chosen = _sizes(store, dense, finished)
    if chosen:
        _one_size(store, dense, chosen)
        _bases(store, sorted(finished, key=lambda name: name != chosen))


def _step(store: RunStore) -> int:
    return len(store.domains)


def _perplexity(store: RunStore, method: str, step: int) -> dict[str, float]:
    """domain -> perplexity after `step`; empty before it is measured."""
    row = perplexity_matrix(runs.table(store, "perplexity"), method, store.domains)[step]
    return dict(zip(store.domains, row.tolist(), strict=True)) if not pd.isna(row).any() else {}


def _sizes(store: RunStore, dense: dict[str, float], finished: list[str]) -> str:
    """Figures, table, and the size of this run that is looked at; empty when none is finished."""
    st.subheader("Size against perplexity", help=GLOSSARY["perplexity"])
    st.caption(
        f"After the step of {plain(store.domains[-1])}: restart trains on that domain alone, joint on all of them, "
        "accumulate on it with a memory of the others. Lower is better; the dashed grey line is the dense model."
    )
    found = _comparable(store)
    table = pd.concat([_size_table(one) for one in found], ignore_index=True)
    table = table.drop_duplicates(["method", "share", "note", "domain"])  # the newest, as runs are listed
    if not len(table):
        empty_state("No size yet", "The first one appears as soon as it has been measured.")
        return ""
    charts.method_key(list(dict.fromkeys(table["method"])))
    places: list[Any] = []
    while len(places) < len(dense):
        places += st.columns(min(3, len(dense)), gap="medium")
    for index, (place, domain) in enumerate(zip(places, dense, strict=False)):
        with place:
            charts.title(plain(f"on {domain}"))
            part = table[table["domain"] == domain]
            figure = sizes.size_figure(table, dense, domain)
            alt = f"Perplexity over bytes kept on domain {index + 1}"
            charts.show(figure, part, f"family-{index + 1}", alt)
    _table(table, dense)
    runs.stamp(store)
    if not finished:
        return ""
    st.subheader("One size")
    chosen = links.choose("Size", "member", finished, show=lambda name: _line(store, name))
    _beside(store, found, _share(store, chosen))
    return chosen


def _comparable(store: RunStore) -> list[RunStore]:
    """This run, and those whose perplexities may stand beside its own: same weights, texts, windows and steps."""

    def sign(one: RunStore) -> object:
        texts = [domain.get("content_hash") for domain in one.info.get("domains", [])]
        checkpoint = one.info.get("checkpoint", {}).get("fingerprint")
        return one.config.checkpoint, checkpoint, one.config.protocol, one.config.steps, texts

    found = [store]
    for summary in Runs().list():
        if summary.id != store.id and summary.checkpoint == store.config.checkpoint:
            other = Runs().open(summary.id)
            try:
                if sign(other) == sign(store):
                    found.append(other)
            except CopalError:  # a damaged folder hides nothing of the others
                continue
    return found


def _size_table(store: RunStore) -> pd.DataFrame:
    tables = runs.table(store, "perplexity"), runs.table(store, "factors")
    found = sizes.run_sizes(store.config, store.id, *tables, store.domains)
    found = found[~found["method"].isin(runs.neuron_methods_of(store))]  # their sizes are on Neurons
    lowrank = {f"{store.id} {name}": name for name in runs.lowrank_methods_of(store)}
    notes = [_trained(store, lowrank[name]) if name in lowrank else "" for name in found["name"]]
    return found.assign(note=notes)


def _trained(store: RunStore, method: str) -> str:
    return trained_words(*training_of(store, method, _step(store)))


def _table(table: pd.DataFrame, dense: dict[str, float]) -> None:
    notes = dict(zip(table["name"], table["note"], strict=True))
    rows = [["dense model", "100 %", "", *map(compact, dense.values())]]
    for _, row in sizes.wide(table).iterrows():
        cells = [compact(row[name]) for name in dense]
        rows.append([str(row["method"]), percent(row["kept"]), notes[row["name"]], *cells])
    charts.text_table(
        ["Method", "Bytes kept", "Trained", *dense], rows, "Perplexity of every size, by domain"
    )


def _beside(store: RunStore, found: list[RunStore], share: float) -> None:
    """Masks and untrained low rank at the same bytes, which another run adds to the figures."""
    config = form.beside(store, round(share, 4))
    known = {
        str(method)
        for other in found
        if other.config.structure == config.structure
        for method in other.config.methods
    }
    at_work = next((other for other in found if other.id != store.id and status_of(other) in ACTIVE), None)
    if at_work is not None:
        st.caption("A run at work will add its sizes to the figures.")
        st.page_link(
            "pages/prune/page.py",
            label="Watch it",
            icon=":material/content_cut:",
            query_params={"run": at_work.id},
        )
    elif store.state().status == "done" and not {str(method) for method in config.methods} <= known:
        st.button(
            f"Draw in masks and untrained low rank at {percent(share)} of the bytes",
            key="family-beside",
            on_click=form.start,
            args=(config, False),
            help="wanda, copal, whitened-svd and svd at this size. Nothing is trained: minutes.",
        )


def _layers(store: RunStore, method: str) -> pd.DataFrame:
    """The records of the layers of one method after the last step."""
    table = runs.table(store, "factors")
    return table[(table["method"] == method) & (table["step"] == _step(store))]


def _share(store: RunStore, method: str) -> float:
    return sizes.stored_share(store.config, _layers(store, method))


def _line(store: RunStore, method: str) -> str:
    curve = sizes.curve_of(Method.parse(method))
    return f"{curve} · kept {percent(_share(store, method))} · {_trained(store, method)}"


def _one_size(store: RunStore, dense: dict[str, float], method: str) -> None:
    """Numbers, ranks, speed and export of the size that is chosen."""
    layers, target = _layers(store, method), store.domains[-1]
    with st.container(horizontal=True, gap="large"):
        st.metric("Bytes of the layers", size(int(layers["bytes"].sum())), percent(_share(store, method)) + " kept",
                  width="content", delta_color="off", delta_arrow="off", help=GLOSSARY["bytes"])  # fmt: skip
        st.metric("Weights of the layers", count(int(layers["parameters"].sum())), width="content")
        st.metric(
            plain(f"Perplexity on {target}"), compact(_perplexity(store, method, _step(store))[target]),
            f"dense {compact(dense[target])}", delta_color="off", delta_arrow="off", width="content",
        )  # fmt: skip
    st.caption(f"{plain(_trained(store, method))}. Protocol: {plain(store.protocol_stamp())}")
    with st.expander("Ranks of its layers", type="compact"):
        first = layers[layers["block"] == layers["block"].min()].set_index("projection")
        first = (
            first.assign(full=first[["rows", "columns"]].min(axis=1)).reindex(PROJECTIONS).dropna(how="all")
        )
        columns = ["kind", "rank", "full", "rows", "columns"]
        st.dataframe(first[columns].reset_index(), hide_index=True, key="member-ranks")
    if not store.recorded:
        _speed(store, method)
        _export(store, method)


def _speed(store: RunStore, method: str) -> None:
    """A button and its progress; then the dense and the factored model side by side, as they run."""
    arguments = ("measure_smaller", store.id, method, _step(store))
    if tasks.at_work(tasks.find(*arguments)):
        return
    found = smaller.known(store, method, _step(store))
    if found is None:
        st.button("Measure its speed here", key="measure-member", on_click=tasks.start, args=arguments,
                  icon=":material/speed:")  # fmt: skip
        return
    rows = [
        [
            label,
            size(found[key]["bytes"]),
            count(found[key]["flops_per_token"]),
            f"{compact(found[key]['prefill'])} tokens/s",
            f"{compact(found[key]['decode'])} tokens/s",
        ]
        for key, label in (("dense", "dense model"), ("smaller", "this size"))
    ]
    columns = ["Whole model", "Bytes at 16 bits", "Operations a token", "Prefill", "Decode"]
    charts.text_table(columns, rows, "Size and speed of the dense and the factored model")
    st.caption(
        f"Measured on this machine ({plain(found['device'])}, {plain(found['dtype'])}): a prompt of 256 tokens, then "
        "32 tokens one by one; medians of five turns each, the models taking turns. Embeddings are counted."
    )
    if found["two_of_four"]:
        _kernels(found["two_of_four"])


def _kernels(found: list[dict[str, Any]]) -> None:
    """2:4 kernels beside dense ones, faster or not; there are none without CUDA."""
    rows = [
        [
            one["name"],
            f"{one['rows']} × {one['columns']}",
            count(one["tokens"]),
            f"{1000 * one['dense']:.3f} ms",
            f"{1000 * one['sparse']:.3f} ms" if one["sparse"] else plain(one["why_not"]),
            f"{one['ratio']:.2f} ×" if one["ratio"] else "-",
        ]
        for one in found
    ]
    columns = ["Layer", "Shape", "Tokens", "Dense", "2:4", "Dense by 2:4"]
    charts.text_table(columns, rows, "One product with a dense and with a 2:4 weight, on this GPU")
    st.caption(
        "Above 1 the 2:4 kernel is faster on this card and shape; below 1 it is slower. Random weights."
    )


def _export(store: RunStore, method: str) -> None:
    """A button, its progress, and where the files are."""
    arguments = exports.arguments(store, "checkpoint", method, _step(store), "hf")
    task = tasks.find(*arguments)
    if tasks.at_work(task):
        return
    if task is None or task.result is None:
        st.button("Export this size", key="export-member", on_click=tasks.start, args=arguments,
                  icon=":material/download:")  # fmt: skip
        return
    st.markdown(
        "Exported: a merged checkpoint that transformers opens as it is, and factors with their loader."
    )
    st.code(str(exports.out_of(arguments)), language=None, wrap_lines=True)


def _bases(store: RunStore, methods: list[str]) -> None:
    """Scales of one layer before and after, of the first of `methods` that has any."""
    step = _step(store)
    method = next((name for name in methods if store.has_arrays("bases", name, step, 0)), None)
    if method is None:
        return
    st.subheader("Basel: which directions were kept", help=GLOSSARY["singular"])
    st.caption(plain(_line(store, method)))
    layers = bases_figures.read_bases(store, method, step)
    blocks = sorted({one["block"] for one in layers})
    left, right = st.columns(2)
    with left:
        block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
    with right:
        projections = [name for name in PROJECTIONS if any(one["projection"] == name for one in layers)]
        projection = links.choose("Projection", "projection", projections, "down_proj")
    one = next((one for one in layers if (one["block"], one["projection"]) == (block, projection)), layers[0])
    table = bases_figures.bases_table(one)
    st.markdown(bases_figures.in_words(table, one["added"]))
    charts.title(
        "Scales before and after relearning",
        help="A base is a direction of the weight with a scale. Grey: its scale at first; blue: relearned on the "
        "target domain; orange crosses: dropped.",
    )
    charts.show(
        bases_figures.bases_figure(table), table, "bases", "Scales of the bases before and after relearning"
    )
    with st.expander("All layers", type="compact"):
        st.dataframe(bases_figures.layers_table(layers), hide_index=True, key="bases-layers")
        st.caption("Surprising: kept although plain svd would have dropped them for their size.")
