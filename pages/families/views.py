"""What the Families page is made of: sizes against perplexity, one size from close by, and Basel's bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures import bases as bases_figures
from copal_core.figures import sizes
from copal_core.figures.numbers import compact, count, percent, size
from copal_core.store.decompositions import DecompositionConfig, DecompositionStore
from copal_core.system import files
from pages.families import form
from pages.shared import charts, links
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_BESIDE = ("wanda", "copal", "whitened-svd", "svd")


def show(store: DecompositionStore) -> None:
    """Everything that is finished of a decomposition and of those that compare with it."""
    result = store.result()
    if "dense" not in result:
        empty_state(
            "Nothing measured yet", "The dense model is measured first; it appears here once that is done."
        )
        return
    members = [
        {**entry, "store": other.id}
        for other in form.comparable(store)
        for entry in other.result()["members"]
    ]
    _sizes(store, result, members)
    own = [entry for entry in result["members"] if _file(store, entry, "factors.safetensors").exists()]
    if own:
        shown = _one_size(store, result, own)
        _bases(store, sorted(own, key=lambda entry: entry["name"] != shown))


def _file(store: DecompositionStore, entry: dict[str, Any], name: str) -> Path:
    return store.member_folder(entry["name"]) / name


def _sizes(store: DecompositionStore, result: dict[str, Any], members: list[dict[str, Any]]) -> None:
    st.subheader("Size against perplexity", help=GLOSSARY["perplexity"])
    targets = ", ".join(result["targets"])
    st.caption(
        f"Calibrated and trained on {plain(targets)}; lower is better; the dashed grey line is the dense model."
    )
    table = _member_table(members, list(result["dense"]))
    if not len(table):
        empty_state("No size yet", "The first one appears as soon as it has been measured.")
        return
    charts.lowrank_key(list(dict.fromkeys(table["method"])))
    domains = list(result["dense"])
    places = [
        place for _ in range(0, len(domains), 3) for place in st.columns(min(3, len(domains)), gap="medium")
    ]
    for index, (place, domain) in enumerate(zip(places, domains, strict=False)):
        with place:
            target = " (target)" if domain in result["targets"] else ""
            charts.title(plain(f"on {domain}{target}"))
            part = table[table["domain"] == domain]
            figure = sizes.size_figure(table, result["dense"], domain)
            charts.show(
                figure, part, f"family-{index + 1}", f"Perplexity over bytes kept on domain {index + 1}"
            )
    _table(table, result)
    st.caption(f"Protocol: {plain(result['stamp'])}, targets {plain(targets)}")
    _beside(store, table)


def _member_table(members: list[dict[str, Any]], domains: list[str]) -> pd.DataFrame:
    """sizes.COLUMNS; a method at one size is there once, the newest."""
    rows, seen = [], set()
    for entry in members:
        method = form.kind_of(str(entry["method"]))
        if (method, entry["share"], entry["label"]) in seen:
            continue
        seen.add((method, entry["share"], entry["label"]))
        for name in domains:
            value = entry["perplexity"].get(name)
            number = float("nan") if value is None else float(value)
            rows.append((method, entry["share"], name, number, entry["name"], entry["label"]))
    return pd.DataFrame(rows, columns=list(sizes.COLUMNS))


def _table(table: pd.DataFrame, result: dict[str, Any]) -> None:
    domains = list(result["dense"])
    notes = dict(zip(table["name"], table["note"], strict=True))
    rows = [["dense model", "100 %", "", *(compact(result["dense"][name]) for name in domains)]]
    for _, row in sizes.wide(table).iterrows():
        cells = [compact(row[name]) for name in domains]
        rows.append([str(row["method"]), percent(row["kept"]), notes[row["name"]], *cells])
    charts.text_table(
        ["Method", "Bytes kept", "Trained", *domains], rows, "Perplexity of every size, by domain"
    )


def _beside(store: DecompositionStore, table: pd.DataFrame) -> None:
    """Masks and untrained low rank at the same bytes, which another process adds to the figure."""
    missing = [name for name in _BESIDE if name not in set(table["method"])]
    if not missing or store.state().status != "done":
        return
    config = store.config
    at_work = form.at_work_beside(store)
    if at_work is not None:
        form.live(at_work)
        return
    shares = tuple(sorted({round(float(share), 4) for share in table["share"] if share < 1}, reverse=True))
    beside = DecompositionConfig(
        config.checkpoint, config.domains, _BESIDE, shares, config.targets, config.protocol
    )
    st.button(
        "Draw in masks and untrained low rank at the same bytes",
        key="family-beside",
        on_click=form.start,
        args=(beside,),
        help="wanda, copal, whitened-svd and svd, each at every size of the family. Nothing is trained: minutes.",
    )


def _one_size(store: DecompositionStore, result: dict[str, Any], members: list[dict[str, Any]]) -> str:
    """Numbers, speed and export of the size that is chosen; returns its name."""
    st.subheader("One size")
    by_name = {entry["name"]: entry for entry in members}
    name = links.choose("Size", "member", list(by_name), show=lambda one: _member_line(by_name[one]))
    entry = by_name[name]
    with st.container(horizontal=True, gap="large"):
        st.metric("Bytes of the layers", size(entry["bytes"]), percent(entry["share"]) + " kept", width="content",
                  delta_color="off", delta_arrow="off", help=GLOSSARY["bytes"])  # fmt: skip
        st.metric("Weights of the layers", count(entry["parameters"]), width="content")
        for domain in result["targets"]:
            st.metric(
                plain(f"Perplexity on {domain}"), compact(entry["perplexity"].get(domain)),
                f"dense {compact(result['dense'][domain])}", delta_color="off", delta_arrow="off", width="content",
            )  # fmt: skip
    st.caption(f"{plain(entry['label'])}. Protocol: {plain(result['stamp'])}")
    ranks = _ranks(store, name)
    if len(ranks):
        with st.expander("Ranks of its layers", type="compact"):
            st.dataframe(ranks, hide_index=True, key="member-ranks")
    _speed(form.speed(store, name))
    form.export(store, name)
    return name


def _speed(found: dict[str, Any] | None) -> None:
    """Dense and factored model side by side, as they run."""
    if found is None:
        return
    rows = [
        [
            label,
            size(found[key]["bytes"]),
            count(found[key]["flops_per_token"]),
            f"{compact(found[key]['prefill'])} tokens/s",
            f"{compact(found[key]['decode'])} tokens/s",
        ]
        for key, label in (("dense", "dense model"), ("factored", "this size"))
    ]
    columns = ["Whole model", "Bytes at 16 bits", "Operations a token", "Reading a prompt", "Writing"]
    charts.text_table(columns, rows, "Size and speed of the dense and the factored model")
    st.caption(
        f"Measured on this machine ({plain(found['device'])}, {plain(found['dtype'])}): a prompt of 256 tokens, then "
        "32 tokens one by one; medians of five turns each, the models taking turns. Embeddings are counted."
    )
    if found.get("two_of_four"):
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


def _member_line(entry: dict[str, Any]) -> str:
    return f"{form.kind_of(entry['method'])} · kept {percent(entry['share'])} · {entry['label']}"


def _ranks(store: DecompositionStore, name: str) -> pd.DataFrame:
    """projection, rank, of (full rank): from the file's header alone; every block has the same."""
    from safetensors import safe_open

    rows = {}
    with safe_open(store.member_folder(name) / "factors.safetensors", framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118  not a mapping
            module, _, side = key.rpartition(".")
            projection = module.rpartition(".")[2]
            if side == "left" and projection in PROJECTIONS and projection not in rows:
                out, rank = file.get_slice(key).get_shape()
                inputs = file.get_slice(f"{module}.right").get_shape()[1]
                rows[projection] = (projection, rank, min(out, inputs), f"{out} × {inputs}")
    columns = ["projection", "rank", "full", "shape"]
    return pd.DataFrame([rows[name] for name in PROJECTIONS if name in rows], columns=columns)


def _bases(store: DecompositionStore, members: list[dict[str, Any]]) -> None:
    """Scales of one layer before and after, of the first member that has any."""
    entry = next((one for one in members if _file(store, one, "bases.json").exists()), None)
    if entry is None:
        return
    st.subheader("Basel: which directions were kept", help=GLOSSARY["singular"])
    st.caption(plain(_member_line(entry)))
    layers = files.read_json(_file(store, entry, "bases.json"))
    blocks = sorted({one["block"] for one in layers})
    left, right = st.columns(2)
    with left:
        block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
    with right:
        projection = links.choose("Projection", "projection", list(PROJECTIONS), "down_proj")
    one = next(one for one in layers if (one["block"], one["projection"]) == (block, projection))
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
