"""Decompositions of a whole checkpoint: which one is looked at, how far it is, and starting another."""

from __future__ import annotations

from typing import Any

import streamlit as st

from copal_core.config import Protocol, Windows
from copal_core.errors import CopalError
from copal_core.experiment import preflight, processes
from copal_core.figures.numbers import duration, percent
from copal_core.store.decompositions import DecompositionConfig, Decompositions, DecompositionStore
from copal_core.store.folder import ACTIVE, status_of
from pages.shared import actions, checkpoints, layer_desk, links, tasks
from pages.shared.domain_names import label_of
from pages.shared.text import empty_state, plain, show_error, show_problem

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


def pick() -> DecompositionStore | None:
    """The decomposition chosen on the page; None with a message when there is none."""
    found = [store for store in Decompositions().list() if _is_family(store)]
    wanted = links.read("family")
    if wanted is not None and wanted not in {store.id for store in found}:
        show_error(CopalError(f"there is no decomposition '{wanted[:64]}'; choose another below"))
    if not found:
        empty_state(
            "No family yet",
            "Start one below. On **tiny** it takes a few minutes; on SmolLM2 the better part of an hour on two cores.",
        )
        return None
    by_id = {store.id: store for store in found}
    default = next((store.id for store in found if status_of(store) == "done"), found[0].id)
    chosen = links.choose(
        "Decomposition", "family", list(by_id), default, show=lambda name: _line(by_id[name])
    )
    return by_id[chosen]


def _is_family(store: DecompositionStore) -> bool:
    try:
        return bool(store.config.methods) and any(kind_of(text) in KINDS for text in store.config.methods)
    except CopalError:
        return False


def kind_of(method: str) -> str:
    """A method without its options; the two metrics of basel stay apart."""
    name = method.partition("[")[0]
    return f"{name}-whitened" if "metric=whitened" in method else name


def _line(store: DecompositionStore) -> str:
    config, status = store.config, status_of(store)
    names = ", ".join(kind_of(text) for text in config.methods)
    day = f"{store.id[:4]}-{store.id[4:6]}-{store.id[6:8]} {store.id[9:11]}:{store.id[11:13]}"
    end = "" if status == "done" else f" · {status}"
    return f"{day} · {config.checkpoint} · {names} · kept {percent(min(config.keep))}{end}"


def watch(store: DecompositionStore) -> None:
    """Where an unfinished one stands."""
    for message in st.session_state.pop(_ERROR, []):
        show_error(CopalError(message))
    state = store.state()
    if state.status in ACTIVE:
        live(store)
    elif state.status != "done":
        show_problem(f"This decomposition is {state.status}: {state.message}")
        st.button("Go on with it", key="resume-family", on_click=_resume, args=(store,))


@st.fragment(run_every=1)
def live(store: DecompositionStore) -> None:
    """Progress of one at work; the page runs again when a size is finished."""
    state = store.state()
    known = st.session_state.setdefault("family-members", {})
    members = len(store.result()["members"])
    if state.status not in ACTIVE or known.setdefault(store.id, members) != members:
        known[store.id] = members
        st.rerun()
    with st.container(border=True):
        st.progress(
            min(1.0, max(0.0, state.progress)), text=plain(state.phase or state.message or "starting")
        )
        st.caption(f"{members} sizes are finished. You may leave this page; the work goes on.")
        actions.say_while_watching()
        waiting = store.cancel_requested()
        st.button(
            "Cancelling" if waiting else "Cancel",
            key=f"cancel-{store.id}",
            disabled=waiting,
            on_click=actions.attempt,
            args=(store.request_cancel,),
        )


def start_form(expanded: bool) -> None:
    """Checkpoint, target domain, kinds and the smallest size; then its cost, and the button."""
    with st.expander("Start a decomposition", expanded=expanded):
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
            members = st.number_input("Sizes in the family", 1, 6, 3, key="family-sizes")
            thousands = st.slider(
                "Training tokens for each size", 0, 64, 8 if setting.checkpoint == layer_desk.FIRST else 16,
                format="%d thousand", key="family-tokens",
                help="Continued training after every step; it starts over when the text is shorter. 0: training-free.",
            )  # fmt: skip
        if not kinds:
            st.caption("Choose at least one kind.")
            return
        if checkpoints.ready(setting.checkpoint) is None:
            checkpoints.prepare(setting.checkpoint)
            return
        tokens = 1024 * int(thousands)
        methods = tuple(_method(name, int(members or 1), tokens) for name in KINDS if name in kinds)
        config = DecompositionConfig(
            setting.checkpoint,
            tuple(domains),
            methods,
            (int(keep) / 100,),
            (str(target),),
            _protocol(setting),
        )
        st.caption(f"{_cost(config, tokens, int(members or 1))} A family goes on when this page is closed.")
        st.button("Start", type="primary", key="start-family", on_click=start, args=(config,))


def _method(name: str, members: int, tokens: int) -> str:
    if name == "plrd":
        return f"plrd[members={members},tokens={tokens}]"
    metric = "metric=whitened," if name == "basel-whitened" else ""
    return f"basel[{metric}tokens={tokens},tuning={tokens}]"


def _protocol(setting: layer_desk.Setting) -> Protocol:
    """The draft's windows; training wants more text than a mask does, so at least 32 windows of it."""
    windows = setting.protocol.calibration
    more = Windows(count=max(32, windows.count), length=windows.length)
    return Protocol(**{**setting.protocol.model_dump(), "calibration": more, "propagate": "dense"})


def _cost(config: DecompositionConfig, tokens: int, members: int) -> str:
    """A rough time: a training token costs some four forward passes of the layers and the head."""
    description = checkpoints.described(config.checkpoint)
    if description is None:
        return ""
    weights = sum(out * columns for out, columns in description.projections.values()) * description.blocks
    weights += description.vocab * description.hidden
    families = sum(text.startswith("plrd") for text in config.methods)
    trained = tokens * (members * families + 2 * (len(config.methods) - families))
    measured = config.protocol.calibration.tokens + 6 * config.protocol.evaluation.tokens * len(
        config.domains
    )
    seconds = 20 + (8 * trained + 3 * measured) * weights / (0.6 * preflight.matrix_rate())
    return f"This takes about {duration(seconds)} on this machine."


def start(config: DecompositionConfig) -> None:
    """Create it, start its process, and look at it."""
    try:
        store = Decompositions().create(config)
        processes.start_decomposition(store)
        if any(kind_of(text) in KINDS for text in config.methods):
            links.write("family", store.id)
    except CopalError as error:
        st.session_state[_ERROR] = [str(error)]


def _resume(store: DecompositionStore) -> None:
    try:
        processes.start_decomposition(store)
    except CopalError as error:
        st.session_state[_ERROR] = [str(error)]


def comparable(store: DecompositionStore) -> list[DecompositionStore]:
    """Decompositions whose perplexities may stand in one figure: same weights, texts, windows and targets."""

    def sign(one: DecompositionStore) -> object:
        result = one.result()
        described = [(domain["name"], domain["content_hash"]) for domain in result.get("domains", [])]
        return result.get("checkpoint"), described, result.get("stamp"), result.get("targets")

    wanted, found = sign(store), []
    for other in Decompositions().list():
        try:
            if other.id == store.id or (sign(other) == wanted and other.result()["members"]):
                found.append(other)
        except CopalError:
            continue
    return found


def at_work_beside(store: DecompositionStore) -> DecompositionStore | None:
    """One that is being computed under the same protocol, whose sizes will join the figures."""
    config = store.config
    wanted = (config.checkpoint, config.domains, config.targets, config.protocol)
    for other in Decompositions().list():
        try:
            found = other.config
        except CopalError:
            continue
        same = (found.checkpoint, found.domains, found.targets, found.protocol) == wanted
        if same and other.id != store.id and status_of(other) in ACTIVE:
            return other
    return None


def export_task(store: DecompositionStore, member: str) -> tuple[str, str, str, str]:
    """Arguments of the worker that writes a member as a checkpoint."""
    return "export_member", store.id, member, str(Decompositions().root / store.id / "exports" / member)


def export(store: DecompositionStore, member: str) -> None:
    """A button, its progress, and where the files are."""
    arguments = export_task(store, member)
    if _task(arguments, "Export this size", "export-member", ":material/download:") is not None:
        st.markdown(
            "Exported: factors with their loader, and a merged checkpoint that transformers opens as it is."
        )
        st.code(arguments[3], language=None, wrap_lines=True)


def speed(store: DecompositionStore, member: str) -> dict[str, Any] | None:
    """A button, its progress, and what `measure_member` found."""
    arguments = ("measure_member", store.id, member)
    return _task(arguments, "Measure its speed here", "measure-member", ":material/speed:")


def _task(arguments: tuple[str, ...], label: str, key: str, icon: str) -> dict[str, Any] | None:
    """A worker's task behind a button; its result once there is one."""
    task = tasks.find(*arguments)
    if tasks.at_work(task):
        return None
    if task is not None and task.result is not None:
        return task.result
    st.button(label, key=key, on_click=tasks.start, args=arguments, icon=icon)
    return None
