"""Housekeeping of runs: title, note, size on disk, trash and restore.

A deleted run is moved into the folder `trash` beside the runs, and lies there until the trash is emptied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from copal_core.errors import InvalidValueError, RunError
from copal_core.store.folder import check_id
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary
from copal_core.system import files, sharing
from copal_core.system.clock import now

TRASH = "trash"  # shorter than any run's id may be
LONGEST_TITLE, LONGEST_NOTE = 120, 4000


def rename(store: RunStore, title: str) -> None:
    """Give the run another title; its id, and so every link to it, stays. Raises for a recorded run."""
    store.refuse_recorded()
    sharing.require_owner(store.folder)
    words = " ".join(title.split())
    if len(words) > LONGEST_TITLE:
        raise InvalidValueError(
            f"a title of {len(words)} characters is too long; use at most {LONGEST_TITLE} and write the rest as a note"
        )
    store.describe(title=words)


def note(store: RunStore, text: str) -> None:
    """Write a note beside the run, in the place of the one there was. Raises for a recorded run."""
    store.refuse_recorded()
    sharing.require_owner(store.folder)
    if len(text) > LONGEST_NOTE:
        raise InvalidValueError(f"a note of {len(text)} characters is too long; use at most {LONGEST_NOTE}")
    store.describe(note=text.strip())


def disk_use(folders: list[Path]) -> int:
    """Bytes on the disk under `folders`; what branches share is counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for status in (found for folder in folders for found in _files(folder)):
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += getattr(status, "st_blocks", 0) * 512 or status.st_size
    return total


def _files(folder: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(parent, name), follow_symlinks=False)
            except OSError:  # a temporary file that was renamed meanwhile
                continue


# -- delete with a way back ----------------------------------------------------------------------------


def delete(store: RunStore) -> None:
    """Move a run into the trash. Raises RunError for a run that is being computed, or a recorded one."""
    store.refuse_recorded()
    sharing.require_owner(store.folder)
    refuse_at_work(store)
    target = store.folder.parent / TRASH / store.id
    with store.lock():  # nobody starts it meanwhile
        if target.exists():
            raise RunError(f"the trash holds another run '{store.id}'; empty the trash first")
        with suppress(RunError):  # a full disk must not keep anybody from making room
            store.describe(deleted=now())
        try:
            target.parent.mkdir(exist_ok=True)
            store.folder.rename(target)
        except OSError as error:
            raise files.readable(target, error) from error


def trashed(root: Path) -> list[RunSummary]:
    """The runs in the trash, the newest first."""
    return Runs(root / TRASH, recorded=root / TRASH / "none").list()


def restore(root: Path, run_id: str) -> RunStore:
    """Take a run out of the trash. Raises RunError when it is not there, or its place is taken."""
    check_id("run", run_id)
    source, target = root / TRASH / run_id, root / run_id
    if not (source / "run.json").is_file():
        raise RunError(f"there is no run '{run_id}' in the trash of {root}")
    sharing.require_owner(source)
    if target.exists():
        raise RunError(f"there is another run '{run_id}' in {root}; rename its folder, then restore")
    try:
        source.rename(target)
    except OSError as error:
        raise files.readable(target, error) from error
    store = RunStore(target)
    store.describe(deleted=None)
    return store


def empty_trash(root: Path) -> int:
    """Delete what is in the trash for good, on a shared server one's own; returns the bytes that this freed."""
    folder = root / TRASH
    if not folder.is_dir():
        return 0
    before = disk_use([root])
    try:
        for found in filter(sharing.is_owner, list(folder.iterdir())):
            shutil.rmtree(found)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise RunError(f"the trash could not be emptied ({error.strerror or error}); try again") from error
    return before - disk_use([root])


def refuse_at_work(store: RunStore) -> None:
    """Raise RunError while a process computes the run, or is about to."""
    try:
        starting = store.state().status == "created" and bool(store.written_state().updated)
    except RunError:  # a damaged status.json is no process
        starting = False
    if starting or store.is_locked():
        raise RunError(f"run '{store.id}' is being computed; cancel it, then delete it")
