"""Actions behind buttons: done before the page is drawn again, their outcome said once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import streamlit as st

from copal_core.errors import CopalError
from pages.shared.text import plain, show_error

_FAILED, _DONE, _SINCE = "action-failed", "action-done", "action-failed-since"
_LONG_ENOUGH = 12.0  # seconds to read an error


def attempt(action: Callable[..., Any], *arguments: Any, done: str = "", place: str = "") -> Any:
    """Call `action`; an error of the user's is kept for `say_outcome`, and so are the words `done`.

    Args:
        action: is called with `arguments`.
        done: said when it succeeded.
        place: the part of the page that says an error; by default the first that calls `say_outcome()`.

    Returns:
        The action's result, None when it failed.
    """
    try:
        result = action(*arguments)
    except CopalError as error:
        st.session_state[_FAILED + place] = str(error)
        return None
    if done:
        say(done)
    return result


def say(words: str) -> None:
    """Keep `words` for `say_outcome`."""
    st.session_state[_DONE] = words


def say_while_watching(place: str = "") -> None:
    """Say an error in a fragment that runs again by itself, for long enough to read it."""
    message = st.session_state.get(_FAILED + place)
    if message is None:
        st.session_state.pop(_SINCE + place, None)
    elif time.monotonic() - st.session_state.setdefault(_SINCE + place, time.monotonic()) < _LONG_ENOUGH:
        show_error(CopalError(message))
    else:
        del st.session_state[_FAILED + place], st.session_state[_SINCE + place]


def say_outcome(place: str = "") -> None:
    """Say in one line what the last button did."""
    message = st.session_state.pop(_FAILED + place, None)
    if message is not None:
        st.session_state.pop(_DONE, None)
        show_error(CopalError(message))
    done = st.session_state.pop(_DONE, None)
    if done is not None:
        st.success(plain(done), icon=":material/check:")
