"""The form of a run: methods, what is removed, protocol; then its cost, and the button that starts it."""

from __future__ import annotations

import streamlit as st

from copal_core import domains
from copal_core.checkpoints import Description
from copal_core.config import RunConfig
from copal_core.errors import CopalError
from copal_core.experiment import preflight
from copal_core.figures import estimators
from copal_core.figures.numbers import duration, percent, several, size
from copal_core.store.run_store import RunStore
from pages.shared import actions, charts, checkpoints, draft, runs
from pages.shared.domain_names import label_of
from pages.shared.text import plain, show_error, show_problem
from pages.shared.words import GLOSSARY, criteria, decompositions, neuron_selectors, strategies

_EPSILONS = tuple(3.0 * 10.0**-power for power in range(1, 8))


def compared_with(store: RunStore) -> None:
    """Say where the form is not what the run above was started with, and offer its settings."""
    if draft.matches(store.config):
        return
    if draft.is_as_filled(store.id):
        st.caption("The run above has options that this form does not offer; it shows the nearest ones.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("The form below holds other settings than the run above.", width="content")
        st.button(
            "Use this run's settings", key="take-settings", on_click=draft.take, args=(store.id, store.config)
        )


def chosen_so_far() -> None:
    """Checkpoint and domains, which other pages choose."""
    values = draft.values()
    with st.container(border=True):
        st.markdown(f"**Checkpoint**: {plain(values['checkpoint'])}")
        order = " → ".join(plain(label_of(spec)) for spec in values["domains"]) or "none yet"
        st.markdown(f"**Domains**: {order}")
        with st.container(horizontal=True, gap="medium"):
            st.page_link(
                "pages/checkpoint/page.py", label="Change checkpoint", icon=":material/deployed_code:"
            )
            st.page_link("pages/domains/page.py", label="Change domains", icon=":material/timeline:")


def methods() -> None:
    """A row of strategies for each criterion, and for each decomposition."""
    st.subheader("Methods", help=f"Criterion: {GLOSSARY['criterion']} Strategy: {GLOSSARY['strategy']}")
    known = strategies()
    chosen = draft.values()["strategies"]
    for name, (label, explanation) in criteria().items():
        _strategies_of(name, label, explanation)
    lowrank = decompositions()
    with st.expander(
        "Low rank, at the same stored bytes", type="compact", expanded=bool(set(lowrank) & set(_chosen()))
    ):
        st.caption("Two small factors in place of each weight, in the bytes that the structure below leaves.")
        for name, (label, explanation) in lowrank.items():
            _strategies_of(name, label, explanation)
    selectors = neuron_selectors()
    with st.expander("Whole neurons", type="compact", expanded=bool(set(selectors) & set(_chosen()))):
        st.caption(
            "Takes hidden neurons out of the feed-forward layers, the same number in each: a smaller model."
        )
        st.slider(
            "Neurons removed",
            1,
            90,
            format="%d %%",
            help=GLOSSARY["hidden neuron"],
            **draft.widget("neuron_share"),
        )
        for name, (label, explanation) in selectors.items():
            _strategies_of(name, label, explanation)
    with st.expander("What the strategies remember", type="compact"):
        for strategy, explanation in known.items():
            st.markdown(f"**{plain(strategy)}**: {plain(explanation)}")
    if "copal" in chosen and chosen["copal"]:
        with st.expander("How COPAL's score is computed", type="compact"):
            _estimator()


def _strategies_of(name: str, label: str, explanation: str) -> None:
    known, key = strategies(), f"draft-strategies-{name}"
    chosen = draft.values()["strategies"].get(name, [])
    st.session_state[key] = [strategy for strategy in chosen if strategy in known]
    st.pills(
        plain(label), list(known), selection_mode="multi", key=key, help=explanation, on_change=_follow_methods,
        args=(name, key),
    )  # fmt: skip


def _chosen() -> list[str]:
    """Methods for which a strategy is chosen."""
    return [name for name, strategies in draft.values()["strategies"].items() if strategies]


def _estimator() -> None:
    st.selectbox(
        "Estimator",
        ["closed-form", "finite-difference", "autograd"],
        help="All three agree on linear layers. Closed form costs one matrix product; finite differences are what the "
        "paper describes; autograd is exact and slow.",
        **draft.widget("estimator"),
    )
    if draft.values()["estimator"] != "closed-form":
        st.number_input(
            "Relative perturbation ε",
            min_value=1e-6,
            max_value=1.0,
            format="%.6f",
            step=0.001,
            **draft.widget("epsilon"),
        )
    _step_size()


def _step_size() -> None:
    """Finite differences lose digits when the step is small: how many, on a random layer, computed here."""
    if not st.toggle("Show how the step changes the estimate", key="show-step-size"):
        return
    table = estimators.estimator_table(_EPSILONS, _step_errors())
    chosen = float(draft.values()["epsilon"] or 0.01)
    charts.show(
        estimators.estimator_figure(table, chosen),
        table,
        "estimator-error",
        "Error of finite differences by step",
    )
    st.caption(
        "Against the closed form, on a random linear layer in float32. The layer is linear, so only rounding is lost: "
        "the smaller the step, the fewer digits are left. The dashed line is the step chosen above."
    )


@st.cache_data(show_spinner="Measuring the estimator")
def _step_errors() -> list[float]:
    from copal_core.analysis.estimators import finite_difference_errors  # imports torch

    return finite_difference_errors(_EPSILONS)


def structure() -> None:
    """Ask which weights may go, and how many."""
    st.subheader("What is removed", help=GLOSSARY["structure"])
    names = {"unstructured": "Unstructured", "n:m": "N:M"}
    st.segmented_control(
        "Structure", list(names), format_func=names.__getitem__, required=True, label_visibility="collapsed",
        **draft.widget("structure"),
    )  # fmt: skip
    if draft.values()["structure"] == "unstructured":
        left, right = st.columns(2)
        with left:
            st.slider("Removed", 0, 95, format="%d %%", help=GLOSSARY["sparsity"], **draft.widget("sparsity"))
        with right:
            groups = {"row": "within each row", "layer": "within the whole layer"}
            st.selectbox(
                "Compared",
                list(groups),
                format_func=groups.__getitem__,
                help=GLOSSARY["group"],
                **draft.widget("group"),
            )
        st.caption(
            f"Removed {draft.values()['sparsity']} %, kept {100 - draft.values()['sparsity']} % of the linear layers."
        )
        return
    left, right = st.columns(2)
    with left:
        st.number_input("Keep N", 1, 255, step=1, **draft.widget("keep"))
    with right:
        st.number_input("of each M inputs", 2, 256, step=1, **draft.widget("group_size"))
    keep, of = draft.values()["keep"], draft.values()["group_size"]
    if keep and of and keep < of:
        st.caption(f"Removed {percent(1 - keep / of)}, kept {percent(keep / of)} of the linear layers.")


def protocol() -> None:
    """Presets, and every field of the protocol for those who want it."""
    st.subheader(
        "Protocol", help="How much text is looked at. Perplexities compare only under the same protocol."
    )
    names = [*draft.PRESETS, draft.CUSTOM]
    st.segmented_control(
        "Preset",
        names,
        required=True,
        label_visibility="collapsed",
        **draft.widget("preset", draft.take_preset),
    )
    values = draft.values()
    note = (
        draft.PRESETS[values["preset"]][2] if values["preset"] in draft.PRESETS else "Your own fields below."
    )
    st.caption(
        f"Calibration {values['calibration_count']} × {values['calibration_length']} tokens, evaluation "
        f"{values['evaluation_count']} × {values['evaluation_length']} tokens. {note}"
    )
    with st.expander("All fields", expanded=values["preset"] == draft.CUSTOM):
        for side in ("calibration", "evaluation"):
            left, right = st.columns(2)
            with left:
                st.number_input(
                    f"{side.capitalize()} windows", 1, 100_000, step=1, help=GLOSSARY[side],
                    **draft.widget(f"{side}_count", _custom),
                )  # fmt: skip
            with right:
                st.number_input(
                    f"Tokens in each {side} window",
                    2,
                    1_048_576,
                    step=1,
                    **draft.widget(f"{side}_length", _custom),
                )
        left, middle, right = st.columns(3)
        with left:
            st.selectbox(
                "Propagation", ["pruned", "dense"], help=GLOSSARY["propagation"], **draft.widget("propagate")
            )
        with middle:
            st.number_input("Seed", 0, 2**31 - 1, step=1, help=GLOSSARY["seed"], **draft.widget("seed"))
        with right:
            formats = ["auto", "float32", "bfloat16", "float16"]
            st.selectbox("Number format", formats, help=GLOSSARY["dtype"], **draft.widget("dtype"))
        st.text_input("Title of the run", max_chars=80, placeholder="optional", **draft.widget("title"))


def before_start() -> None:
    """Show what the run will cost, whether it fits, and the button that starts it."""
    st.markdown("**Before you start**")
    actions.say_outcome()
    try:
        config = draft.config()
        description = checkpoints.described(config.checkpoint)
    except CopalError as error:
        show_error(error)
        return
    if description is None:
        st.caption("Minutes, memory and disk are estimated once the checkpoint is prepared.")
        checkpoints.prepare(config.checkpoint)
        return
    _cost(config, description)
    count = len(config.methods) * len(config.domains)
    domains, methods = several(len(config.domains), "domain"), several(len(config.methods), "method")
    st.caption(f"{domains} × {methods}: {several(count, 'pruning')}.")
    st.button(
        "Start the run", type="primary", on_click=_start, args=(config,), width="stretch", key="start-run"
    )
    with st.expander("The same on the command line", type="compact"):
        st.code(draft.command_line(config), language="bash", wrap_lines=True)


def _cost(config: RunConfig, description: Description) -> None:
    found = _estimate(config.canonical(), description)
    rows = (
        ("Time", duration(60 * found.minutes), ""),
        ("Memory", size(found.memory_bytes), size(found.memory_free)),
        ("Disk", size(found.disk_bytes), size(found.disk_free)),
    )
    # a number stays on the line of its unit
    lines = [" | ".join(cell.replace(" ", "\u00a0") for cell in row) for row in rows]
    st.markdown("\n".join(["| | needed | free |", "|:--|--:|--:|", *(f"| {line} |" for line in lines)]))
    with st.expander("What stays in memory", type="compact"):
        st.markdown("\n".join(f"- {line}" for line in found.plan.lines(size)))
    if found.fits:
        st.caption(":material/check: This fits on this machine. Time is a rough estimate.")
        return
    for problem in found.problems:
        show_problem(problem)
    if found.smaller is not None:
        smaller = found.smaller.protocol
        st.button(
            f"Use {smaller.calibration} and {smaller.evaluation} windows, which fit", on_click=_use_smaller,
            args=(found.smaller,), key="use-smaller", width="stretch",
        )  # fmt: skip


@st.cache_data(max_entries=64, ttl=20, show_spinner=False)
def _estimate(canonical: str, _description: Description) -> preflight.Estimate:
    return preflight.estimate(RunConfig.from_json(canonical), _description)


def _start(config: RunConfig) -> None:
    def begin() -> None:
        protocol = config.protocol
        # texts that are too short are refused here, not by the process
        domains.resolve_specs(config.domains, protocol.calibration, protocol.evaluation)
        runs.start_new(config, str(draft.values()["title"] or "").strip())

    actions.attempt(begin)


def _use_smaller(config: RunConfig) -> None:
    draft.set_windows(config.protocol.calibration, config.protocol.evaluation)
    draft.values()["preset"] = draft.CUSTOM


def _custom(value: object) -> None:
    draft.values()["preset"] = draft.CUSTOM


def _follow_methods(name: str, key: str) -> None:
    draft.values()["strategies"][name] = list(st.session_state[key])
