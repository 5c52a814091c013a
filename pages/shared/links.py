"""State in the URL, which is its only source and survives a change of page.

Navigation drops query parameters, so the app restores them before each page runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

T = TypeVar("T")

PARAMETERS = (
    "run", "view", "method", "step", "metric", "other_method", "other_step", "layer", "projection", "map", "checkpoint",
    "model", "kept", "fit", "close", "member", "share", "pair", "on",
    "texts", "windows", "sweep",
    "lesson",
    "other_run", "text", "window", "domain", "by", "row", "column",
    "runs", "group", "measure",
)  # fmt: skip
_REMEMBERED = "linked-state"
_LONGEST = 200


def start() -> None:
    """Redirect /start, an address that people type, to the start page, whose own address is /."""
    st.switch_page("pages/start/page.py")


def restore() -> None:
    """Restore the last page's parameters, which navigation dropped; called by the app."""
    remembered: dict[str, str] = st.session_state.setdefault(_REMEMBERED, {})
    missing = {}
    for name in PARAMETERS:
        if name in st.query_params:
            remembered[name] = st.query_params[name][:_LONGEST]
        elif name in remembered:
            missing[name] = remembered[name]
    if missing:
        st.query_params.update(missing)


def read(name: str) -> str | None:
    """Return the parameter's text, cut to 200 characters; None without the parameter."""
    value = st.query_params.get(name)
    return value[:_LONGEST] if value else None


def write(name: str, value: object) -> None:
    """Set a parameter; a value of None removes it."""
    remembered: dict[str, str] = st.session_state.setdefault(_REMEMBERED, {})
    if value is None:
        remembered.pop(name, None)
        if name in st.query_params:
            del st.query_params[name]
    else:
        remembered[name] = str(value)
        st.query_params[name] = str(value)


def choose(
    label: str,
    name: str,
    options: Sequence[T],
    default: T | None = None,
    *,
    show: Callable[[T], str] = str,
    segments: bool = False,
    help: str | None = None,
    hidden_label: bool = False,
) -> T:
    """Show a choice whose value is stored in the URL, and return it.

    Args:
        label: of the widget.
        name: of the parameter; a value in the URL that is not an option is ignored.
        options: at least one.
        default: used without a value in the URL; else the first option.
        show: formats an option.
        segments: show buttons in a row instead of a list.
        help: shown on hover.
        hidden_label: show the label to screen readers only.
    """
    by_text = {str(option): option for option in options}
    current = by_text.get(read(name) or "", default if default in options else options[0])
    key = f"linked-{name}"
    st.session_state[key] = current
    arguments = {
        "key": key,
        "format_func": show,
        "help": help,
        "on_change": _follow,
        "args": (name, key),
        "label_visibility": "collapsed" if hidden_label else "visible",
    }
    if segments:
        st.segmented_control(label, options, required=True, **arguments)
    else:
        st.selectbox(label, options, **arguments)
    return current


def _follow(name: str, key: str) -> None:
    """Copy a changed widget's value to the URL, from which the page then reads it."""
    write(name, st.session_state[key])
