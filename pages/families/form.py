"""Starting a run of several sizes of one checkpoint, for one target domain."""

from __future__ import annotations

import streamlit as st

from copal_core.config import Method, RunConfig, Structure, Windows
from copal_core.errors import CopalError
from copal_core.experiment import preflight, processes
from copal_core.figures.numbers import duration
from copal_core.methods import stored_size
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary
from pages.shared import checkpoints, layer_desk, links
from pages.shared.domain_names import label_of
from pages.shared.text import show_error, show_problem

_ERROR = "family-error"
KINDS = {
    "plrd": (
        "PLRD family",
        "Ranks fall step by step; each size is refactorised from the one before, then trained on.",
    ),
    "basel": (
        "Basel",
        "Relearns the size of every direction on the target domain, drops the small ones, adds a few.",
    ),
    "basel-whitened": (
        "Basel, whitened",
        "The same on the directions that the target domain's inputs use most, not on those of the weight alone.",
    ),
}
_DEFAULT = ["plrd", "basel-whitened"]
_MASKS, _UNTRAINED = ("wanda", "copal"), ("whitened-svd", "svd")


def is_family(run: RunSummary) -> bool:
    """True for a run with a method that this page starts."""
    return any(Method.parse(method).name in KINDS for method in run.methods)


def start_form(expanded: bool) -> None:
    """Checkpoint, target domain, kinds and the smallest size; then its cost, and the button."""
    for message in st.session_state.pop(_ERROR, []):
        show_error(CopalError(message))
    with st.expander("Start a run of several sizes", expanded=expanded):
        setting = layer_desk.setting()
        domains = list(setting.domains)
        if not domains:
            raise CopalError("there is no domain; add at least one on the Domains page")
        left, right = st.columns(2)
        with left:
            target = st.selectbox(
                "Target domain", domains, format_func=label_of, key="family-target",
                help="The text that is calibrated and trained on. Perplexity is measured on all domains.",
            )  # fmt: skip
            kinds = st.pills(
                "Kinds", list(KINDS), selection_mode="multi", default=_DEFAULT, key="family-kinds",
                format_func=lambda name: KINDS[name][0], help=" ".join(words for _, words in KINDS.values()),
            )  # fmt: skip
        with right:
            keep = st.slider("Smallest size: bytes kept", 30, 95, 80, format="%d %%", key="family-keep")
            sizes = st.number_input("Sizes in the family", 1, 6, 3, key="family-sizes")
            thousands = st.slider(
                "Training tokens for each size", 0, 64, 8 if setting.checkpoint == layer_desk.FIRST else 16,
                format="%d thousand", key="family-tokens",
                help="Continued training at every size on the way; the text starts over when it is shorter. "
                "0: training-free.",
            )  # fmt: skip
        if not kinds:
            st.caption("Choose at least one kind.")
            return
        description = checkpoints.described(setting.checkpoint)
        if description is None:
            checkpoints.prepare(setting.checkpoint)
            return
        chosen = [name for name in KINDS if name in kinds]
        config = family(setting, str(target), chosen, int(keep) / 100, int(sizes or 1), 1024 * int(thousands))
        found = preflight.estimate(config, description)
        st.caption(
            f"About {duration(60 * found.minutes)} on this machine; it goes on when this page is closed."
        )
        for problem in found.problems:
            show_problem(problem)
        st.button("Start", type="primary", key="start-family", on_click=start, args=(config,))


def family(
    setting: layer_desk.Setting, target: str, kinds: list[str], keep: float, sizes: int, tokens: int
) -> RunConfig:
    """The run of `kinds` down to `keep` of the bytes: the last step, at which the target is the newest domain.

    Training wants more text than a mask does: at least 32 windows.
    """
    methods: list[tuple[str, dict[str, str | float | bool]]] = []
    for name in kinds:
        if name == "plrd":
            steps = range(1, sizes + 1)
            shares = {step: round(1 - (1 - keep) * step / sizes, 4) for step in steps}
            methods += [("plrd", {"keep": shares[s], "members": s, "tokens": tokens}) for s in steps]
        else:
            metric = {"metric": "whitened"} if name == "basel-whitened" else {}
            methods.append(("basel", {"keep": keep, "tokens": tokens, "tuning": tokens, **metric}))
    windows = setting.protocol.calibration
    more = Windows(count=max(32, windows.count), length=windows.length)
    return RunConfig(
        checkpoint=setting.checkpoint,
        domains=(*(one for one in setting.domains if one != target), target),
        methods=tuple(Method(name=name, strategy="restart", options=options) for name, options in methods),
        protocol=setting.protocol.model_copy(update={"calibration": more, "propagate": "dense"}),
        steps="last",
    )


def beside(store: RunStore, share: float) -> RunConfig:
    """Masks and untrained low rank at `share` of the bytes, under the protocol of a run and with its strategy."""
    config = store.config
    strategy = config.methods[-1].strategy
    untrained = {"keep": share}
    return RunConfig(
        **{
            **dict(config),
            "structure": Structure(sparsity=round(min(0.999, stored_size.sparsity_at(share)), 6)),
            "methods": (
                *(Method(name=name, strategy=strategy) for name in _MASKS),
                *(Method(name=name, strategy=strategy, options=untrained) for name in _UNTRAINED),
            ),
        }
    )


def start(config: RunConfig, look: bool = True) -> None:
    """Create the run and start its process. look: open it on this page."""
    try:
        store = Runs().create(config, title=f"Sizes of {config.checkpoint}")
        processes.start(store)
        if look:
            links.write("run", store.id)
    except CopalError as error:
        st.session_state[_ERROR] = [str(error)]
