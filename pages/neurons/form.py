"""Starting a run that removes neurons: several shares, every selector at the same count."""

from __future__ import annotations

import streamlit as st

from copal_core.config import Method, RunConfig
from copal_core.errors import InvalidValueError
from copal_core.experiment import preflight
from copal_core.figures.numbers import duration, several
from copal_core.store.run_store import RunStore
from copal_core.store.runs import RunSummary
from pages.shared import actions, checkpoints, draft, runs
from pages.shared.domain_names import label_of
from pages.shared.text import plain, show_problem
from pages.shared.words import GLOSSARY, neuron_selectors, strategies

SHARES = (5, 10, 20, 30, 50)


def removes_neurons(run: RunSummary) -> bool:
    """Return True for a run with a method that removes neurons."""
    return any(Method.parse(method).name in neuron_selectors() for method in run.methods)


def at_work(store: RunStore) -> bool:
    return store.state().status in ("created", "running")


def start_form(expanded: bool) -> None:
    """Checkpoint and domains of the draft, shares, selectors, a strategy; then its cost and the button."""
    actions.say_outcome()
    with st.expander("Start a run that removes neurons", expanded=expanded):
        values = draft.values()
        order = " → ".join(plain(label_of(spec)) for spec in values["domains"]) or "none yet"
        st.markdown(f"**Checkpoint**: {plain(values['checkpoint'])}  \n**Domains**: {order}")
        with st.container(horizontal=True, gap="medium"):
            st.page_link(
                "pages/checkpoint/page.py", label="Change checkpoint", icon=":material/deployed_code:"
            )
            st.page_link("pages/domains/page.py", label="Change domains", icon=":material/timeline:")
        shares = st.pills(
            "Neurons removed", SHARES, selection_mode="multi", default=(5, 10, 30), key="neuron-shares",
            format_func=lambda share: f"{share} %", help="Of every block's hidden neurons, the same number in each.",
        )  # fmt: skip
        selectors = neuron_selectors()
        chosen = st.pills(
            "Chosen by", list(selectors), selection_mode="multi", default=list(selectors), key="neuron-selectors",
            format_func=lambda name: selectors[name][0], help=" ".join(words for _, words in selectors.values()),
        )  # fmt: skip
        known = strategies()
        strategy = st.selectbox(
            "Strategy", list(known), key="neuron-strategy", help=GLOSSARY["strategy"],
            format_func=lambda name: f"{name}: {known[name].partition(';')[0].partition('.')[0].lower()}",
        )  # fmt: skip
        if not shares or not chosen:
            st.caption("Choose at least one share and one way to choose.")
            return
        methods = [
            Method(name=name, strategy=strategy, options={"share": share / 100})
            for share in sorted(shares)
            for name in selectors
            if name in chosen
        ]
        _start_with(methods)


def _start_with(methods: list[Method]) -> None:
    values = draft.values()
    if not values["domains"]:
        raise InvalidValueError("there is no domain; add at least one on the Domains page")
    description = checkpoints.described(values["checkpoint"])
    if description is None:
        checkpoints.prepare(values["checkpoint"])
        return
    config = RunConfig(
        checkpoint=values["checkpoint"],
        domains=tuple(values["domains"]),
        methods=tuple(methods),
        protocol=draft.protocol(),
    )
    found = preflight.estimate(config, description)
    windows = [
        str(one).replace("x", "×") for one in (config.protocol.calibration, config.protocol.evaluation)
    ]
    st.caption(
        f"{several(len(config.domains), 'domain')} × {several(len(methods), 'method')}, windows {windows[0]} and "
        f"{windows[1]} as on Prune. About {duration(60 * found.minutes)} on this machine; it goes on when this page "
        "is closed."
    )
    for problem in found.problems:
        show_problem(problem)
    st.button(
        "Start", type="primary", key="start-neurons", on_click=actions.attempt,
        args=(runs.start_new, config, f"Neurons of {config.checkpoint}"),
    )  # fmt: skip
