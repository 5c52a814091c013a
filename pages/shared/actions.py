"""Actions behind buttons: done before the page is drawn again, their outcome said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from copal_core.errors import CopalError
from pages.shared.text import plain, show_error

_FAILED, _DONE, _WHERE = "action-failed", "action-done", "action-failed-where"


def attempt(action: Callable[..., Any], *arguments: Any, done: str = "", place: str = "") -> Any:
    """Call `action`; an error of the user's is kept for `say_outcome`, and so are the words `done`.

    Args:
        action: is called with `arguments`.
        done: said when it succeeded.
        place: the part of the page that says an error; by default the first that calls `say_outcome()`.

    Returns:
        The action's result, None when it failed.
    """
    for key in (_FAILED + place, _WHERE + place):
        st.session_state.pop(key, None)
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
    """Say an error in a fragment that runs again by itself, which the rest of its page does not.

    It stays, however slowly it is read, until the next button or another address.
    """
    message, here = st.session_state.get(_FAILED + place), st.query_params.to_dict()
    if message is None:
        st.session_state.pop(_WHERE + place, None)
    elif st.session_state.setdefault(_WHERE + place, here) == here:
        show_error(CopalError(message))
    else:
        del st.session_state[_FAILED + place], st.session_state[_WHERE + place]


def say_outcome(place: str = "") -> None:
    """Say in one line what the last button did."""
    message = st.session_state.pop(_FAILED + place, None)
    if message is not None:
        st.session_state.pop(_DONE, None)
        show_error(CopalError(message))
    done = st.session_state.pop(_DONE, None)
    if done is not None:
        st.success(plain(done), icon=":material/check:")
