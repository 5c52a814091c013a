"""One group: its progress, the view of its outcomes, its runs, and its deletion."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis import groups as analysis
from copal_core.errors import CopalError
from copal_core.experiment import groups
from copal_core.figures.numbers import several
from copal_core.methods.describe import removed
from copal_core.store.folder import RunState, status_of
from copal_core.store.groups import Group, Groups
from pages.shared import actions, job_panel, links
from pages.shared.text import empty_state, plain, show_error, show_problem
from pages.sweep import front, spread

_FILTERS = {
    "checkpoint": "Checkpoints",
    "order": "Orders",
    "structure": "Structures",
    "method": "Methods",
    "seed": "Seeds",
}
_VIEWS = {
    "spread": "Spread",
    "front": "Size against perplexity",
    "transfer": "Forgetting against perplexity",
    "multiples": "Small multiples",
}
_LISTED = 64


def pick() -> Group | None:
    """The group chosen on the page; None with a message when there is none."""
    if (linked := links.read("sweep")) is not None:  # as links of earlier versions name it
        links.write("group", linked)
        links.write("sweep", None)
    found = {group.id: group for group in Groups().list()}
    wanted = links.read("group")
    if wanted is not None and wanted not in found:
        show_error(CopalError(f"there is no group '{wanted[:64]}'; choose another below"))
    if not found:
        empty_state(
            "No group yet",
            "Start one below: repeat a run over a few seeds to see whether a gap between methods is more than chance, "
            "or combine methods and structures. On **tiny** a dozen runs take a minute or two.",
        )
        return None
    return found[links.choose("Group", "group", list(found), show=lambda name: _line(found[name]))]


def _line(group: Group) -> str:
    when = group.created[:16].replace("T", " ")
    parts = [when, group.title, several(len(group.members), "run"), _varied(group), status_of(group)]
    return " · ".join(filter(None, parts))


def _varied(group: Group) -> str:
    return f"by {', '.join(group.varies)}" if group.varies else ""


def show(group: Group) -> None:
    """Progress, the outcomes so far, and the runs."""
    job_panel.show(
        group,
        "group",
        lambda: groups.start(group),
        progress=lambda state: _progress(group, state),
        version=lambda: groups.progress(group)[0],  # one more run for the figures
    )
    table = _outcomes(group)
    if not len(table):
        empty_state("Nothing finished yet", "Each run appears here as soon as it is done.")
    else:
        _draw(group, _filtered(table))
    _members(group)
    st.button(
        "Delete the group",
        key="discard-group",
        icon=":material/delete:",
        on_click=_discard,
        args=(group,),
        disabled=groups.is_active(group),
        help="Moves its runs into the trash. The group is back as soon as one of them is.",
    )
    front.follow()


def _progress(group: Group, state: RunState) -> tuple[float, str]:
    done, share = groups.progress(group)
    words = f"{done} of {len(group.members)} runs done"
    return share, f"{words}, {state.message}" if state.message.startswith("waiting") else words


def _outcomes(group: Group) -> pd.DataFrame:
    """Read again only when another run is done."""
    done = groups.progress(group)[0]
    known: dict[str, Any] = st.session_state.setdefault("group-outcomes", {})
    if known.get("key") != (group.id, done):
        known.update(key=(group.id, done), table=analysis.outcomes(group.finished()))
    table: pd.DataFrame = known["table"]
    return table


def _draw(group: Group, table: pd.DataFrame) -> None:
    offered = [
        name for name in _VIEWS if name != "spread" or {"seed", "order", "calibration"} & {*group.varies}
    ]
    default = "front" if group.kind == "sweep" else "spread"
    view = links.choose(
        "View", "view", offered, default, show=lambda name: _VIEWS[name], segments=True, hidden_label=True
    )
    if view == "spread":
        spread.show(group, table)
    elif view == "multiples":
        front.multiples(analysis.without_dense(table))
    else:
        front.show(analysis.without_dense(table), view)
    st.caption(plain(_stamp(group, table)))


def _filtered(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the filters leave, which is never nothing; a filter is there only where there is a choice.

    The dense model's rows stay where a run of their setting does.
    """
    rows = analysis.without_dense(table)
    offered = {name: list(dict.fromkeys(rows[name])) for name in _FILTERS}
    offered = {name: options for name, options in offered.items() if len(options) > 1}
    if not offered:
        return table
    with st.expander("Filter", key="sweep-filter"):
        for name, options in offered.items():
            chosen = st.multiselect(_FILTERS[name], options, key=f"sweep-{name}", placeholder="all")
            left = rows[rows[name].isin(chosen)] if chosen else rows
            if len(left):
                rows = left
            else:
                show_problem(
                    f"{_FILTERS[name]}: none of these is left by the filters above; shown without it"
                )
    settings = rows[list(analysis.SETTINGS)].drop_duplicates()
    return pd.concat([table[table["method"] == "dense"].merge(settings), rows], ignore_index=True)


def _stamp(group: Group, table: pd.DataFrame) -> str:
    """The protocol of the whole group: what its runs share, and what they differ in."""
    names = [name for name in analysis.SETTINGS if name not in ("weights", "length", "run_structure")]
    values = {name: table[name].unique() for name in names}
    shared = [analysis.named(name, found[0]) for name, found in values.items() if len(found) == 1]
    if "structure" not in group.varies:
        shared.append(f"removed {removed(group.members[0].settings())}")
    shown = [name for name, found in values.items() if len(found) > 1]
    as_shown = [f"{', '.join(shown)} as shown"] if shown else []
    return f"Protocol: {' · '.join([*shared, *as_shown])}"


def _members(group: Group) -> None:
    words = f"The {len(group.members)} runs of this group"
    folded = st.expander(words, type="compact", key=f"members-{group.id}", on_change="rerun")
    if not folded.open:
        return
    with folded:
        for number, member in enumerate(group.members[:_LISTED], start=1):
            store = group.store_of(member)
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{number}. {plain(group.describe(member))}", width="stretch")
                st.caption("waiting" if store is None else status_of(store), width="content")
                if store is not None:
                    st.button(
                        "Open",
                        key=f"member-{number}",
                        on_click=_open_member,
                        args=(store.id,),
                        type="tertiary",
                    )
        if len(group.members) > _LISTED:
            st.caption(f"{len(group.members) - _LISTED} more are on the page Runs.")


def _open_member(run_id: str) -> None:
    links.write("view", "list")
    front.open_run(run_id, "runs")


def _discard(group: Group) -> None:
    def move() -> bool:
        groups.discard(group)
        return True

    if actions.attempt(move, done="The group's runs are in the trash."):
        links.write("group", None)
