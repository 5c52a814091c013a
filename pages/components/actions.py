"""What a button does to a run: done before the page is drawn again, its outcome said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from copal_core.errors import CopalError
from pages.components.text import plain, show_error

_FAILED, _DONE = "action-failed", "action-done"


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


def say_outcome() -> None:
    """One line about what the last button did."""
    message = st.session_state.pop(_FAILED, None)
    if message is not None:
        st.session_state.pop(_DONE, None)
        show_error(CopalError(message))
    done = st.session_state.pop(_DONE, None)
    if done is not None:
        st.success(plain(done), icon=":material/check:")
