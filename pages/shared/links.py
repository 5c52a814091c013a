"""State that a link carries: the URL is the only truth, and survives a change of page.

Navigation drops query parameters, so the app restores them before each page runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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
_REMEMBERED, _THROUGH_APP, _WANTED = "linked-state", "through-app", "wanted-page"
_LONGEST = 200


def through_app(page_file: str) -> None:
    """First line of every page. Streamlit runs a page's file without the app when a deep link is the very
    first request that a server gets; then start over through the app, with the same parameters."""
    if _THROUGH_APP not in st.session_state:
        st.session_state[_WANTED] = (
            f"pages/{Path(page_file).parent.name}/page.py",
            st.query_params.to_dict(),
        )
        st.switch_page("app.py")


def resume() -> None:
    """Go to the page that was asked for before the app had run. Called by the app, after navigation is set."""
    wanted = st.session_state.pop(_WANTED, None)
    if wanted is not None:
        st.switch_page(wanted[0], query_params=wanted[1])


def start() -> None:
    """The page at /start, as somebody would type it: the start page, whose own address is /."""
    st.switch_page("pages/start/page.py")


def restore() -> None:
    """Put back the parameters that the last page had and navigation dropped. Called by the app."""
    st.session_state[_THROUGH_APP] = True
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
    """The parameter's text, at most 200 characters of it."""
    value = st.query_params.get(name)
    return value[:_LONGEST] if value else None


def write(name: str, value: object) -> None:
    """Set a parameter, or remove it with None."""
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
    """A choice whose value lives in the URL. A value that is not among the options is ignored.

    `options` must not be empty. segments: buttons in a row instead of a list.
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
    """A widget changed: the URL follows, and the page then reads the URL."""
    write(name, st.session_state[key])
