"""Text of people, shown as it is: nothing in it is read as Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from copal_core.errors import CopalError

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")


def plain(text: object) -> str:
    """`text` for places that read Markdown, with every mark escaped and on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def show_error(error: Exception) -> None:
    """One red sentence."""
    st.error(plain(error), icon=":material/error:")


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error of the user's as a sentence; anything else is a defect and goes on."""
    try:
        yield
    except CopalError as error:
        show_error(error)


def show_problem(text: str) -> None:
    """One amber sentence: nothing is broken, but a reader should know."""
    st.warning(plain(text), icon=":material/warning:")


def empty_state(title: str, what_next: str, **pages: str) -> None:
    """In place of figures that do not exist yet: what to do next. All texts are the product's own.

    pages: where to do it, as the page's file name and the words of its link.
    """
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(what_next)
        for name, words in pages.items():
            st.page_link(f"pages/{name}/page.py", label=words, icon=":material/arrow_forward:")
