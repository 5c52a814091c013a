"""What a button does to a run: done before the page is drawn again, its outcome said once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from copal_core.errors import CopalError
from pages.shared.text import plain, show_error

_FAILED, _DONE, _SINCE = "action-failed", "action-done", "action-failed-since"
_LONG_ENOUGH = 12.0  # seconds to read an error


def attempt(action: Callable[..., Any], *arguments: Any, done: str = "") -> Any:
    """Call `action`; an error of the user's is kept for `say_outcome`, and so are the words `done`.

    Returns what the action returned, None when it failed.
    """
    try:
        result = action(*arguments)
    except CopalError as error:
        st.session_state[_FAILED] = str(error)
        return None
    if done:
        say(done)
    return result


def say(words: str) -> None:
    """Keep `words` for `say_outcome`."""
    st.session_state[_DONE] = words


def say_while_watching() -> None:
    """In a fragment that runs again by itself, which the rest of its page does not: an error stays for a while."""
    message = st.session_state.get(_FAILED)
    if message is None:
        st.session_state.pop(_SINCE, None)
    elif time.monotonic() - st.session_state.setdefault(_SINCE, time.monotonic()) < _LONG_ENOUGH:
        show_error(CopalError(message))
    else:
        del st.session_state[_FAILED], st.session_state[_SINCE]


def say_outcome() -> None:
    """One line about what the last button did."""
    message = st.session_state.pop(_FAILED, None)
    if message is not None:
        st.session_state.pop(_DONE, None)
        show_error(CopalError(message))
    done = st.session_state.pop(_DONE, None)
    if done is not None:
        st.success(plain(done), icon=":material/check:")
