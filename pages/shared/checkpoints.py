"""Checkpoints on a page: which are ready, the description before loading, and preparing one with a progress bar."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from copal_core.checkpoints import Checkpoint, Description, locate
from copal_core.figures.numbers import count, size
from pages.shared import tasks
from pages.shared.text import plain
from pages.shared.words import GLOSSARY


class NotPreparedError(Exception):
    """The checkpoint must be converted or downloaded first."""


def ready(name: str) -> Checkpoint | None:
    """The checkpoint when it can be opened at once; None when it must be converted or downloaded first.

    Raises CheckpointError when it cannot be opened at all.
    """
    task = tasks.find("prepare", name)
    if task is not None and task.result is not None:
        return Checkpoint(task.result["name"], Path(task.result["folder"]), task.result["revision"])
    if "/" in name and not Path(name).expanduser().exists() and not name.startswith(("/", ".", "~")):
        return None  # a hub id: asking for it may mean a download
    try:
        return locate(name, _not_now)
    except NotPreparedError:
        return None


@st.cache_data(max_entries=16, ttl=20, show_spinner=False)
def described(name: str) -> Description | None:
    """The description of a checkpoint that is ready, else None. Free memory in it is at most 20 s old."""
    checkpoint = ready(name)
    return checkpoint.describe() if checkpoint is not None else None


def prepare(name: str) -> None:
    """Offer to convert or download a checkpoint, and show how far that is."""
    if tasks.at_work(tasks.find("prepare", name), "Preparing the checkpoint"):
        st.caption("You may leave this page; the work goes on.")
        return
    with st.container(border=True):
        st.markdown("**Not prepared yet**")
        st.markdown(
            "It is converted or downloaded once into a cache folder, and opens within seconds from then on. "
            "The bundled SmolLM2 takes well under a minute."
        )
        st.button("Prepare", type="primary", on_click=_start, args=(name,), key="prepare-checkpoint")


def describe(description: Description) -> None:
    """Show what the checkpoint is and needs."""
    from copal_core.figures.parameters import parameter_figure, parameter_table
    from pages.shared import charts

    with st.container(horizontal=True, gap="large"):
        st.metric("Parameters", count(description.total), width="content")
        st.metric("Decoder blocks", description.blocks, width="content")
        st.metric("Hidden size", f"{description.hidden:,}", width="content")
        st.metric(
            "Context",
            f"{description.context:,}",
            width="content",
            help="Longest text it was made for, in tokens.",
        )
        st.metric("Vocabulary", f"{description.vocab:,}", width="content")
    charts.title(
        "Parameters by part",
        help="Pruning removes weights from attention and MLP (blue); the grey parts stay whole.",
    )
    table = parameter_table(description.parameters)
    charts.show(parameter_figure(table), table, "parameters", "Parameters by part of the model")
    _memory(description)
    with st.container(border=True):
        st.markdown(_attention(description), help=GLOSSARY["gqa"])
        reason = description.dtype_reason.removeprefix(f"{description.dtype}: ")
        st.markdown(
            f"**Number format**: {plain(description.dtype)} on {plain(description.device)}; {plain(reason)}."
        )
        st.markdown(
            f"**Architecture**: {plain(description.architecture)}, MLP width {description.ffn:,}, "
            f"{'tied' if description.tied else 'separate'} input and output embeddings, stored as "
            f"{plain(description.stored_dtype)} ({size(description.file_bytes)} on disk)."
        )


def _attention(description: Description) -> str:
    heads, kv_heads = description.heads, description.kv_heads
    if heads == kv_heads:
        return f"**Attention**: {heads} heads of {description.head_dim} dimensions, each with its own keys and values."
    return (
        f"**Grouped-query attention**: {heads} query heads of {description.head_dim} dimensions share {kv_heads} "
        f"key-value heads, {description.queries_per_key} to each."
    )


def _memory(description: Description) -> None:
    needed, free = description.memory_needed(), description.memory_free
    share = needed / free if free else 1.0
    st.markdown(
        "**Memory**",
        help="The weights alone; a run's statistics and windows come on top and are estimated on Prune.",
    )
    st.progress(
        min(1.0, share),
        text=f"{size(needed)} needed in {plain(description.dtype)}, {size(free)} free on {plain(description.device)}",
    )
    if share > 1:
        st.info(
            f"The weights need {size(needed)} and {size(free)} is free: a run keeps one decoder block in memory at a "
            "time and reads the next from disk. Prune says what that takes.",
            icon=":material/hard_drive:",
        )


def _start(name: str) -> None:
    tasks.start("prepare", name)
    described.clear()


def _not_now(label: str, done: int, total: int) -> None:
    raise NotPreparedError
