"""Everything that leaves a run as a file: one function behind the Report page's buttons and the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.errors import InvalidValueError
from copal_core.store.run_store import RunStore

KINDS = ("report", "tables", "masks", "bundle", "checkpoint")


def write(
    kind: str,
    store: RunStore,
    out: Path,
    method: str = "",
    step: int | None = None,
    form: str = "",
    report: Callable[[str, int, int], None] = lambda label, done, total: None,
    check: bool = True,
) -> dict[str, Any]:
    """Write one file of a run, or the folder of a pruned checkpoint.

    Args:
        kind: one of `KINDS`.
        store: the run.
        out: the file, or the folder, to write.
        method: of the result that masks and a checkpoint are of.
        step: of that result; the last by default.
        form: of tables (csv, parquet or json) or of a checkpoint (hf or compressed-tensors).
        report: told how far the check of a checkpoint is.
        check: False leaves an hf checkpoint unread; compressed-tensors is always read back.

    Returns:
        run, file and bytes; for a checkpoint run, folder, format and domains (name -> perplexity in the run and as
        reloaded, none where it was not checked).

    Raises:
        InvalidValueError: for an unknown kind, format, method or step.
        RunError: when the run keeps too little, or `out` cannot be written.
        NumericalError: when a checkpoint that was read back is not the run's model; it is removed.
    """
    step = len(store.config.domains) if step is None else step
    if kind == "checkpoint":
        return {"run": store.id, **_write_checkpoint(store, out, method, step, form, report, check)}
    _write_file(kind, store, out, method, step, form)
    return {"run": store.id, "file": str(out), "bytes": out.stat().st_size}


def _write_file(kind: str, store: RunStore, out: Path, method: str, step: int, form: str) -> None:
    match kind:  # imported where needed: plotly and pandas take a while
        case "report":
            from copal_core.export.report import write_report

            write_report(store, out)
        case "tables":
            from copal_core.export.tables import write_tables

            write_tables(store, out, form)
        case "masks":
            from copal_core.export.packed_masks import write_masks

            write_masks(store, method, step, out)
        case "bundle":
            from copal_core.export.bundle import write_bundle

            write_bundle(store, out)
        case _:
            raise InvalidValueError(f"output '{kind}' is not known; use {', '.join(KINDS)}")


def _write_checkpoint(
    store: RunStore,
    out: Path,
    method: str,
    step: int,
    form: str,
    report: Callable[[str, int, int], None],
    check: bool,
) -> dict[str, Any]:
    if check or form != "hf":
        from copal_core.export.checkpoints import export_and_check

        return export_and_check(store, method, step, out, form, report)
    from copal_core.export.checkpoint import export_checkpoint

    return {"folder": str(export_checkpoint(store, method, step, out)), "format": form, "domains": {}}
