"""Masks and low rank: what each loses of a layer, and of the model, at the same stored bytes."""

from __future__ import annotations

import streamlit as st

st.title("Masks and low rank")
st.caption(
    "Two ways to be smaller, side by side at the same stored bytes: remove weights, or factorise them."
)

# imported after the title is on the screen
from pages.lowrank import views, whole_model  # noqa: E402
from pages.shared import layer_desk  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

with errors_shown():
    setting = layer_desk.setting()
    entry = layer_desk.ready_entry(setting)
    if entry is not None:
        views.one_layer(setting, entry)
        whole_model.results(setting)
