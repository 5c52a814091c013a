"""Offers of the Report page: each thing is written by a worker, then handed to the browser."""

from __future__ import annotations

import streamlit as st

from copal_core.export.checkpoints import FORMATS, LIMITS, TOLERANCES, why_not
from copal_core.export.packed_masks import LOADER, why_no_masks
from copal_core.export.tables import FORMATS as TABLE_FORMATS
from copal_core.figures.numbers import compact, size
from copal_core.store.run_store import RunStore
from pages.shared import charts, exports, links, runs, tasks
from pages.shared.exports import Arguments
from pages.shared.text import empty_state, plain

_MIME = {".html": "text/html", ".zip": "application/zip"}


def show(store: RunStore) -> None:
    """Everything a run can be taken out as."""
    if not len(runs.table(store, "perplexity")):
        empty_state("Nothing to report yet", "The report has figures once the dense model is measured.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _report(store)
        _bundle(store)
    with right:
        _tables(store)
        _images()
    st.subheader("One method after one step")
    method, step = _result(store)
    left, right = st.columns(2, gap="large")
    with left:
        _masks(store, method, step)
    with right:
        _checkpoint(store, method, step)


def _report(store: RunStore) -> None:
    with st.container(border=True):
        st.markdown("**A report to read**")
        st.markdown(
            "One HTML file of about 5 MB: every figure moves, every table is there, light or dark as the reader's "
            "screen is. It asks for nothing from the network."
        )
        _offer("report", exports.arguments(store, "report"), "Write the report")


def _bundle(store: RunStore) -> None:
    with st.container(border=True):
        st.markdown("**A bundle to repeat it**")
        tokens = "" if not store.recorded else " A recorded run keeps no tokens: its texts are read again."
        st.markdown(
            "Configuration, versions, SHA-256 of weights and texts, the tokens that were used, the results, and the "
            f"command. Without the checkpoint.{tokens}"
        )
        _offer("bundle", exports.arguments(store, "bundle"), "Write the bundle")
        st.code("python -m copal_core reproduce BUNDLE.zip", language="bash", wrap_lines=True)


def _tables(store: RunStore) -> None:
    with st.container(border=True):
        st.markdown("**Every table**")
        st.markdown(
            "Perplexity, layers, stasis, overlaps, warnings and seconds, with all their digits, in one zip."
        )
        form = st.segmented_control(
            "Format", list(TABLE_FORMATS), default="csv", required=True, key="table-format",
            format_func=lambda name: TABLE_FORMATS[name],
        )  # fmt: skip
        _offer("tables", exports.arguments(store, "tables", form=str(form)), "Write the tables")


def _images() -> None:
    with st.container(border=True):
        st.markdown("**Figures as pictures**")
        st.markdown(
            "The report has PNG and SVG beside every figure. In this app, the camera above a figure saves it; "
            "*Table and download* beneath it chooses PNG or SVG."
        )


def _result(store: RunStore) -> tuple[str, int]:
    with st.container(border=True):
        left, right = st.columns(2)
        methods = runs.methods_of(store)
        with left:
            method = links.choose("Method", "method", methods, methods[0])
        steps = list(range(1, len(store.config.domains) + 1))
        with right:
            step = links.choose(
                "After domain", "step", steps, steps[-1], show=lambda number: runs.step_name(store, number)
            )
    return method, step


def _masks(store: RunStore, method: str, step: int) -> None:
    with st.container(border=True):
        st.markdown("**Masks**")
        why = why_no_masks(store, method, step)
        if why:
            st.markdown(plain(why))
            return
        st.markdown("A bit a weight, as safetensors in a zip, with this loader:")
        with st.expander("load_masks.py", type="compact", key="loader"):
            st.code(LOADER, language="python")
        _offer("masks", exports.arguments(store, "masks", method, step), "Write the masks")


def _checkpoint(store: RunStore, method: str, step: int) -> None:
    with st.container(border=True):
        st.markdown("**A checkpoint for transformers**")
        if store.recorded:
            st.markdown(
                "A recorded run keeps no masks or factors; start a run of your own to export from it."
            )
            return
        st.markdown(
            "The dense size, with zeros for what was removed, and a card that says how it was made. It is read back "
            "and measured again before it counts as done."
        )
        form = st.segmented_control(
            "Format", list(FORMATS), default="hf", required=True, key="checkpoint-format",
            format_func=lambda name: FORMATS[name],
        )  # fmt: skip
        if form == "compressed-tensors":
            st.caption(plain(LIMITS))
            reason = why_not(form)
            if reason:
                st.markdown(f"Not available here: {plain(reason)}")
                return
        _exported(store, exports.arguments(store, "checkpoint", method, step, str(form)))


def _exported(store: RunStore, arguments: Arguments) -> None:
    task = _finished(arguments, "Export, read back and measure", "checkpoint")
    if task is None or task.result is None:
        return
    allowed = TOLERANCES.get(str(store.info.get("checkpoint", {}).get("dtype")), 1e-3)
    st.success(
        f"Exported. Read back through transformers, its perplexity is the run's within {100 * allowed:g} %.",
        icon=":material/check:",
    )
    rows = [[name, compact(p["run"]), compact(p["reloaded"])] for name, p in task.result["domains"].items()]
    charts.text_table(
        ["Domain", "In the run", "Read back"], rows, "Perplexity in the run and of the reloaded files"
    )
    runs.stamp(store)
    st.code(task.result["folder"], language=None, wrap_lines=True)


def _offer(kind: str, arguments: Arguments, label: str) -> None:
    """A button that has the file written; then the file."""
    task = _finished(arguments, label, kind)
    if task is None:
        return
    path = exports.out_of(arguments)
    if not path.is_file():
        st.caption("The file is gone from this machine.")
        tasks.forget(*arguments)
        return
    st.download_button(
        f"Download {size(path.stat().st_size)}",
        path.read_bytes,  # read when it is clicked, not before
        file_name=path.name,
        mime=_MIME[path.suffix],
        key=f"download-{kind}",
        on_click="ignore",
        type="primary",
        icon=":material/download:",
    )


def _finished(arguments: Arguments, label: str, kind: str) -> tasks.Task | None:
    """The task when it is over and well; until then its button, its progress or its error."""
    task = tasks.find(*arguments)
    if task is not None and task.result is not None:
        return task
    if tasks.at_work(task):
        return None
    st.button(
        label, key=f"write-{kind}", on_click=tasks.start, args=arguments, icon=":material/edit_document:"
    )
    return None
