"""Form for choosing a checkpoint."""

from __future__ import annotations

import streamlit as st

from copal_core.checkpoints import catalogue
from pages.shared import draft, links
from pages.shared.text import plain, show_problem

_SOURCES = {
    "bundled": "Bundled",
    "hub": "Hugging Face hub",
    "local": "Folder or GGUF file",
}


def form() -> str | None:
    """Show the form and return the chosen checkpoint's name, stored in the draft; None until one is given."""
    values = draft.values()
    known = {checkpoint.name: checkpoint for checkpoint in catalogue()}
    source = values.setdefault("source", "bundled" if values["checkpoint"] in known else "local")
    st.segmented_control(
        "Where from", list(_SOURCES), format_func=_SOURCES.__getitem__, required=True, label_visibility="collapsed",
        **draft.widget("source"),
    )  # fmt: skip
    source = values["source"]
    if source == "bundled":
        return _bundled(known)
    return _named(source)


def _bundled(known: dict) -> str | None:
    values = draft.values()
    values.setdefault("bundled", values["checkpoint"] if values["checkpoint"] in known else next(iter(known)))
    st.radio(
        "Checkpoint",
        list(known),
        format_func=lambda name: plain(known[name].label),
        captions=[plain(checkpoint.note) for checkpoint in known.values()],
        **draft.widget("bundled", lambda name: links.write("checkpoint", name)),
    )
    chosen = known[values["bundled"]]
    values["checkpoint"] = chosen.name
    if not chosen.available:
        show_problem(f"{chosen.label} is not available: {chosen.why_not}")
        return None
    return chosen.name


def _named(source: str) -> str | None:
    field = f"{source}_name"
    draft.values().setdefault(field, "")
    if source == "hub":
        st.text_input(
            "Hub id",
            placeholder="owner/name or owner/name@revision",
            help="Any LLaMA-architecture model with safetensors. Code from the hub is never run.",
            max_chars=200,
            **draft.widget(field),
        )
    else:
        st.text_input(
            "Folder or file",
            placeholder="/path/to/folder or /path/to/model.gguf",
            help="A folder with config.json, safetensors and a tokenizer, or one GGUF file, on this app's machine.",
            max_chars=500,
            **draft.widget(field),
        )
    name = str(draft.values()[field] or "").strip()
    if not name:
        return None
    draft.values()["checkpoint"] = name
    return name
