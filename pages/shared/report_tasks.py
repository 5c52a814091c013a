"""What leaves a run as a file: where it is put, and how a worker writes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.config import Method
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

EXPORTS = "exports"
Arguments = tuple[str, str, str, str, str, int, str]
NAMES = {
    "report": "{run}.html",
    "tables": "{run}-tables-{form}.zip",
    "masks": "{run}-masks-{method}-step-{step}.zip",
    "bundle": "{run}-bundle.zip",
    "checkpoint": "{method}-step-{step}-{form}",
}


def arguments(store: RunStore, kind: str, method: str = "", step: int = 0, form: str = "") -> Arguments:
    """Arguments of the worker; they change when the run does, so that nothing old is handed out."""
    slug = Method.parse(method).slug if method else ""
    name = NAMES[kind].format(run=store.id, method=slug, step=step, form=form)
    folder = Runs().root / EXPORTS / store.id
    changed = [path.stat().st_mtime_ns for path in _of_the_run(store) if path.exists()]
    place = "checkpoints" if kind == "checkpoint" else f"files-{max(changed, default=0)}"
    return "take_out", kind, store.id, str(folder / place / name), method, step, form


def out_of(chosen: Arguments) -> Path:
    """The file, or folder, that the worker writes."""
    return Path(chosen[3])


def _of_the_run(store: RunStore) -> list[Path]:
    return [store.folder / name for name in ("run.json", "results.sqlite", "status.json")]


def write(
    kind: str, run: str, out: Path, method: str, step: int, form: str, report: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Write what is asked for. Returns its path, and what a checkpoint's check found."""
    store = Runs().open(run)
    if kind == "checkpoint":
        from copal_core.export.checkpoints import export_and_check

        report("Writing the checkpoint", 0, 0)
        shutil.rmtree(out, ignore_errors=True)  # an earlier export under this very name
        return export_and_check(store, method, step, out, form, report)
    _forget_older(out.parent)
    report("Writing the file", 0, 0)
    if kind == "report":
        from copal_core.export.report import write_report

        write_report(store, out)
    elif kind == "tables":
        from copal_core.export.tables import write_tables

        write_tables(store, out, form)
    elif kind == "masks":
        from copal_core.export.packed_masks import write_masks

        write_masks(store, method, step, out)
    else:
        from copal_core.export.bundle import write_bundle

        write_bundle(store, out)
    return {"file": str(out)}


def forget(run: str) -> None:
    """A run is deleted: so is what can be written again from it. Exported checkpoints stay."""
    for folder in (Runs().root / EXPORTS / run).glob("files-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _forget_older(folder: Path) -> None:
    """Files written before the run changed are made again when they are wanted."""
    for old in folder.parent.glob("files-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
