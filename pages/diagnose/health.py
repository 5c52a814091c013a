"""Health: what in a run deserves a second look, with its place and what to do."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.analysis.diagnosis import health
from copal_core.analysis.diagnosis.health import Finding
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.shared import charts, runs
from pages.shared.text import empty_state

_SHOWN = 12


def draw(store: RunStore) -> None:
    """Findings by check, the gravest first; then the checks that found nothing."""
    if not len(runs.table(store, "perplexity")):
        empty_state(
            "Nothing to check yet", "The checks read what a run has measured; this one has just begun."
        )
        return
    found = _examined(store.id, runs.version(store))
    bad = [check for check in health.CHECKS if found[check.name]]
    if not bad:
        with st.container(border=True):
            st.markdown(":material/check_circle: **Nothing found.** These checks were made:")
            _list(list(health.CHECKS))
        return
    for check in bad:
        _findings(check, found[check.name])
    fine = [check for check in health.CHECKS if not found[check.name]]
    if fine:
        st.markdown(":material/check_circle: **Found nothing**")
        _list(fine)


def _findings(check: health.Check, findings: list[Finding]) -> None:
    icon = ":material/error:" if any(one.severity == "error" for one in findings) else ":material/warning:"
    st.markdown(f"{icon} **{check.label}**: {len(findings)}", help=check.explanation)
    rows = [[one.where, one.found, one.advice] for one in findings]
    charts.text_table(["Where", "What was found", "What to do"], rows[:_SHOWN], check.label)
    if len(rows) > _SHOWN:
        st.caption(f"The first {_SHOWN} of {len(rows)}.")
        table = pd.DataFrame(rows, columns=["where", "found", "what to do"])
        charts.table_below(table, f"health-{check.name}")


def _list(checks: list[health.Check]) -> None:
    st.markdown("\n".join(f"- **{check.label}**: {check.explanation}" for check in checks))


@st.cache_data(max_entries=20, show_spinner=False)
def _examined(run: str, changed: runs.Version) -> dict[str, list[Finding]]:
    return health.examine(Runs().open(run))
