"""The commands that treat runs as things: `runs`, `rename`, `note`, `delete`, `restore`, `trash` and `undo`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.errors import InvalidValueError
from copal_core.experiment import processes
from copal_core.figures.numbers import several
from copal_core.store import shelf
from copal_core.store.runs import Runs, RunSummary, matching

AddCommand = Callable[[str, Any, str], argparse.ArgumentParser]


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser through `command(name, function, summary)`."""

    def made(name: str, function: Any, summary: str, run: bool = True) -> argparse.ArgumentParser:
        parser = command(name, function, summary)
        parser.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")
        if run:
            parser.add_argument("run")
        return parser

    listed = made("runs", _list, "List the runs, with their size on disk.", run=False)
    listed.add_argument("--status", help="only those: done, running, cancelled, failed, interrupted")
    listed.add_argument("--checkpoint", help="only those of this checkpoint")
    listed.add_argument("--domain", help="only those with this domain")
    listed.add_argument("--method", help="only those with this method, such as copal or copal:accumulate")
    listed.add_argument("--text", default="", help="only those whose title, note or id holds this")
    made("rename", _rename, "Give a run another title; its id stays.").add_argument("title")
    made("note", _note, "Write a note beside a run.").add_argument("text")
    made("delete", _delete, "Move a run into the trash.")
    made("restore", _restore, "Take a run out of the trash.")
    trash = made("trash", _trash, "List what is in the trash.", run=False)
    trash.add_argument("--empty", action="store_true", help="delete it for good")
    made("undo", _undo, "A new run without the last domain; the old one stays.").add_argument(
        "--title", default=""
    )


def _list(options: argparse.Namespace) -> None:
    root = Runs(options.runs)
    chosen = matching(
        root.list(), options.status, options.checkpoint, options.domain, options.method, options.text
    )
    rows = [{**_row(run), "bytes": shelf.disk_use([root.open(run.id).folder])} for run in chosen]
    total = shelf.disk_use([root.root])
    if options.json:
        print(json.dumps({"runs": rows, "bytes": total}, ensure_ascii=False))
        return
    for row in rows:
        size = f"{row['bytes'] / 2**20:.1f} MiB"
        print(f"{row['run']}  {row['status']:11}  {size:>11}  {row['title'] or ', '.join(row['domains'])}")
    print(f"{several(len(rows), 'run')}; {total / 2**20:.1f} MiB in {root.root}")


def _row(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.id,
        "status": run.status,
        "title": run.title,
        "note": run.note,
        "created": run.created,
        "checkpoint": run.checkpoint,
        "domains": list(run.domains),
        "methods": list(run.methods),
        "group": run.group,
        "recorded": run.recorded,
    }


def _rename(options: argparse.Namespace) -> None:
    store = Runs(options.runs).open(options.run)
    shelf.rename(store, options.title)
    _say(options, {"run": store.id, "title": store.info["title"]}, f"{store.id}: {store.info['title']}")


def _note(options: argparse.Namespace) -> None:
    store = Runs(options.runs).open(options.run)
    shelf.note(store, options.text)
    _say(options, {"run": store.id, "note": store.info["note"]}, f"{store.id}: noted")


def _delete(options: argparse.Namespace) -> None:
    store = Runs(options.runs).open(options.run)
    shelf.delete(store)
    _say(options, {"run": store.id, "deleted": True}, f"{store.id} is in the trash; `restore` takes it back")


def _restore(options: argparse.Namespace) -> None:
    store = shelf.restore(Runs(options.runs).root, options.run)
    _say(options, {"run": store.id, "restored": True}, f"{store.id} is back")


def _trash(options: argparse.Namespace) -> None:
    root = Runs(options.runs).root
    runs = shelf.trashed(root)
    if options.empty:
        freed = shelf.empty_trash(root)
        _say(
            options,
            {"deleted": len(runs), "bytes": freed},
            f"{len(runs)} runs deleted, {freed / 2**20:.1f} MiB freed",
        )
        return
    lines = "\n".join(f"{run.id}  {run.title}" for run in runs) or "the trash is empty"
    _say(options, {"runs": [_row(run) for run in runs]}, lines)


def _undo(options: argparse.Namespace) -> None:
    store = Runs(options.runs).open(options.run)
    if len(options.title) > shelf.LONGEST_TITLE:
        raise InvalidValueError(f"--title is too long; use at most {shelf.LONGEST_TITLE} characters")
    new = processes.undo(store, options.title)
    _say(options, {"run": new.id, "undone_from": store.id}, f"run {new.id} has {', '.join(new.domains)}")


def _say(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    print(json.dumps(content, ensure_ascii=False) if options.json else text)
