"""User-supplied text shown literally: nothing in it is interpreted as Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from copal_core.errors import CopalError

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")


def plain(text: object) -> str:
    """Escape `text` for Markdown and put it on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def show_error(error: Exception) -> None:
    """Show an error as one sentence on red."""
    st.error(plain(error), icon=":material/error:")


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a CopalError as a sentence; any other exception is a defect and is passed on."""
    try:
        yield
    except CopalError as error:
        show_error(error)


def show_problem(text: str) -> None:
    """Show a warning as one sentence on amber."""
    st.warning(plain(text), icon=":material/warning:")


def empty_state(title: str, what_next: str, **pages: str) -> None:
    """Show what to do next, in place of figures that do not exist yet.

    Args:
        title: what is missing, in Markdown.
        what_next: what to do, in Markdown.
        **pages: links, as the page's folder name and the link's label.
    """
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(what_next)
        for name, words in pages.items():
            st.page_link(f"pages/{name}/page.py", label=words, icon=":material/arrow_forward:")
