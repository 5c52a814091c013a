"""The ordered timeline of domains: add, reorder, remove, preview."""

from __future__ import annotations

import streamlit as st

from copal_core.domains import builtins, find, hub_presets
from copal_core.errors import CopalError
from pages.domains import uploads
from pages.shared import checkpoints, draft, tasks
from pages.shared.domain_names import is_upload, label_of
from pages.shared.text import empty_state, plain, show_error, show_problem

_PRESET_NOTES = {
    "hub:wikitext-2": "Encyclopaedic prose; used by most pruning papers.",
    "hub:ptb": "Newspaper text without capitals and with rare words removed.",
    "hub:c4": "Web pages, streamed: only a part is downloaded.",
}
_MOST = 64


def show() -> None:
    """Show the domains in order, each with its buttons."""
    specs = draft.values()["domains"]
    if not specs:
        empty_state(
            "No domains yet", "Add at least one with the form on this page. Two or more show forgetting."
        )
    for index, spec in enumerate(specs):
        with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"step-{index}"):
            with st.container(width="stretch", gap="xsmall"):
                st.markdown(f"**{index + 1}. {plain(label_of(spec))}**")
                st.caption("Your file" if is_upload(spec) else plain(spec))
            _buttons(index, spec, len(specs))
    if len(specs) == 1:
        st.caption("With one domain nothing can be forgotten; add a second to compare.")


def _buttons(index: int, spec: str, total: int) -> None:
    with st.container(horizontal=True, width="content", gap="xsmall"):
        st.button(
            "", icon=":material/arrow_upward:", key=f"up-{index}", help="Move earlier", on_click=_move,
            args=(index, -1), disabled=index == 0,
        )  # fmt: skip
        st.button(
            "", icon=":material/arrow_downward:", key=f"down-{index}", help="Move later", on_click=_move,
            args=(index, 1), disabled=index == total - 1,
        )  # fmt: skip
        st.button(
            "", icon=":material/visibility:", key=f"preview-{index}", help="Preview its windows", on_click=_preview,
            args=(spec,),
        )  # fmt: skip
        st.button(
            "", icon=":material/close:", key=f"remove-{index}", help="Remove", on_click=_remove, args=(index,)
        )


def add_form() -> None:
    """Show the forms that add a built-in domain, a file, or a data set from the hub."""
    sources = {"builtin": "Built in", "file": "Your file", "hub": "Hugging Face hub"}
    draft.values().setdefault("domain_source", "builtin")
    st.segmented_control(
        "Source", list(sources), format_func=sources.__getitem__, required=True, label_visibility="collapsed",
        **draft.widget("domain_source"),
    )  # fmt: skip
    source = draft.values()["domain_source"]
    if source == "builtin":
        _add_builtin()
    elif source == "file":
        uploads.form(add)
    else:
        _add_hub()


def add(spec: str) -> None:
    """Append a domain to the timeline unless it is already there."""
    specs = draft.values()["domains"]
    if spec not in specs and len(specs) < _MOST:
        specs.append(spec)


def _add_builtin() -> None:
    st.caption("These work without a network, on any machine.")
    for domain in builtins():
        description = domain.description if domain.available else domain.why_not
        _offer(domain.name, domain.label, description, domain.available)


def _offer(spec: str, label: str, description: str, available: bool = True) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch", gap=None):
            st.markdown(f"**{plain(label)}**")
            st.caption(plain(description))
        there = spec in draft.values()["domains"]
        st.button(
            "Added" if there else "Add",
            key=f"add-{spec}",
            disabled=there or not available,
            on_click=add,
            args=(spec,),
        )


def _add_hub() -> None:
    st.caption("Fetched when the windows are drawn; needs a network.")
    for spec, label in hub_presets().items():
        try:
            find(spec)  # raises where a shared server does not allow its download
            _offer(spec, label, _PRESET_NOTES.get(spec, spec))
        except CopalError as error:
            _offer(spec, label, str(error), available=False)
    with st.form("hub-id", border=False, clear_on_submit=False):
        given = st.text_input(
            "Any text data set",
            placeholder="owner/name or owner/name:config#column",
            help="The column that holds the text follows a hash; without one, `text` is used.",
            max_chars=200,
        )
        if st.form_submit_button("Add data set") and given.strip():
            try:
                spec = given.strip() if given.strip().startswith("hub:") else f"hub:{given.strip()}"
                find(spec)
                add(spec)
                st.rerun()
            except CopalError as error:
                show_error(error)


def preview() -> None:
    """Show the calibration and evaluation windows of the domain whose preview button was pressed, as text."""
    spec = st.session_state.get("preview")
    if spec is None or spec not in draft.values()["domains"]:
        return
    st.subheader(f"Windows of {plain(label_of(spec))}")
    checkpoint = draft.values()["checkpoint"]
    try:
        protocol = draft.protocol()
        if checkpoints.ready(checkpoint) is None:
            st.caption(
                "The checkpoint's tokenizer splits the text into tokens; prepare the checkpoint first."
            )
            checkpoints.prepare(checkpoint)
            return
    except CopalError as error:
        show_error(error)
        return
    arguments = (
        "preview",
        checkpoint,
        spec,
        str(protocol.calibration),
        str(protocol.evaluation),
        protocol.seed,
    )
    if st.session_state.pop("preview-start", False):
        tasks.start(*arguments)
    task = tasks.find(*arguments)
    if task is None:
        st.button("Draw the windows with the current protocol", on_click=_preview, args=(spec,))
    elif not tasks.at_work(task) and task.result is not None:
        _show_windows(task.result, str(protocol.calibration), str(protocol.evaluation))


def _show_windows(sample: dict, calibration: str, evaluation: str) -> None:
    st.caption(
        f"Calibration {_times(calibration)} and evaluation {_times(evaluation)} tokens, drawn with the current seed. "
        f"They come from {sample['documents'].get('calibration', 0)} and {sample['documents'].get('evaluation', 0)} "
        "documents and share none."
    )
    for note in sample["notes"]:
        show_problem(note)
    columns = st.columns(2)
    for column, (side, title) in zip(
        columns, (("calibration", "Calibration"), ("evaluation", "Evaluation")), strict=True
    ):
        with column:
            texts = sample[side]
            index = st.selectbox(
                f"{title} window",
                range(len(texts)),
                format_func=lambda number: str(number + 1),
                key=f"window-{side}",
            )
            st.code(texts[index], language=None, wrap_lines=True, height=320)


def _times(windows: str) -> str:
    return windows.replace("x", " × ")


def _move(index: int, by: int) -> None:
    specs = draft.values()["domains"]
    if 0 <= index < len(specs) and 0 <= index + by < len(specs):
        specs[index], specs[index + by] = specs[index + by], specs[index]


def _remove(index: int) -> None:
    specs = draft.values()["domains"]
    if 0 <= index < len(specs):
        del specs[index]


def _preview(spec: str) -> None:
    st.session_state["preview"], st.session_state["preview-start"] = spec, True
