"""Files written from a run, which lie in <runs>/exports until the browser has taken them."""

from __future__ import annotations

import shutil
from pathlib import Path

from copal_core.config import Method
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

EXPORTS = "exports"
Arguments = tuple[str, str, str, str, str, int, str]
_NAMES = {
    "report": "{run}.html",
    "tables": "{run}-tables-{form}.zip",
    "masks": "{run}-masks-{method}-step-{step}.zip",
    "bundle": "{run}-bundle.zip",
    "checkpoint": "{method}-step-{step}-{form}",
}


def arguments(store: RunStore, kind: str, method: str = "", step: int = 0, form: str = "") -> Arguments:
    """Return the arguments of the worker; they change when the run does, so that nothing old is handed out."""
    slug = Method.parse(method).slug if method else ""
    name = _NAMES[kind].format(run=store.id, method=slug, step=step, form=form)
    parts = (store.folder / part for part in ("run.json", "results.sqlite", "status.json"))
    changed = max((path.stat().st_mtime_ns for path in parts if path.exists()), default=0)
    folder = "checkpoints" if kind == "checkpoint" else f"files-{changed}"
    out = Runs().root / EXPORTS / store.id / folder / name
    return "write", kind, store.id, str(out), method, step, form


def out_of(chosen: Arguments) -> Path:
    """Return the file, or the folder, that the worker writes."""
    return Path(chosen[3])


def make_room(kind: str, out: Path) -> None:
    """Delete an earlier checkpoint of the same name, or the files written before the run changed."""
    if kind == "checkpoint":
        shutil.rmtree(out, ignore_errors=True)
        return
    for old in out.parent.parent.glob("files-*"):
        if old != out.parent:
            shutil.rmtree(old, ignore_errors=True)


def forget(run: str) -> None:
    """Delete what can be written again from a run that is deleted now. Exported checkpoints stay."""
    for folder in (Runs().root / EXPORTS / run).glob("files-*"):
        shutil.rmtree(folder, ignore_errors=True)
