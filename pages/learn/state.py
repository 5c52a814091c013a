"""State of the lesson: the reader's settings and answers, which survive a change of step."""

from __future__ import annotations

from typing import Any

import streamlit as st

_KEY = "lesson"


def remembered(name: str, default: Any) -> Any:
    """Return the value that was last chosen for `name`."""
    return st.session_state.setdefault(_KEY, {}).get(name, default)


def remember(name: str, value: Any) -> None:
    st.session_state.setdefault(_KEY, {})[name] = value


def widget(name: str, default: Any) -> dict[str, Any]:
    """Return arguments that bind a widget to the remembered value of `name`."""
    key = f"lesson-{name}"
    value = remembered(name, default)
    if value is not None:
        st.session_state[key] = value

    def follow() -> None:
        remember(name, st.session_state[key])

    return {"key": key, "on_change": follow}
