"""Folders in the cache: each built once, atomically, by one process at a time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from copal_core.errors import CheckpointError

Report = Callable[[str, int, int], None]

_SAMPLES = 16
_SAMPLE_BYTES = 1 << 16


def make_once(target: Path, build: Callable[[Path], None], report: Report) -> Path:
    """Return the folder `target`, building it first if it does not exist.

    The folder appears under its name only when it is complete. A second process that needs the same folder waits
    for the first one.

    Args:
        target: the folder.
        build: receives a temporary folder and fills it.
        report: receives label, done and total while waiting.

    Raises:
        CheckpointError: the cache cannot be written.
    """
    if target.is_dir():
        return target
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1.0)
            except Timeout:
                report("Waiting for another process that prepares the same checkpoint", 0, 100)
        try:
            if not target.is_dir():
                _build(target, build)
        finally:
            lock.release()
    except OSError as error:
        raise CheckpointError(
            f"the cache folder '{target.parent}' cannot be written ({error.strerror or error}); "
            "make room there, or set COPAL_CACHE to another folder"
        ) from None
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    """Build beside the target, flush to disk, then rename; remains of a killed process are deleted first."""
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        build(temporary)
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def content_key(path: Path) -> str:
    """Return twelve hexadecimal digits that identify a large file: a hash of its size and of bytes sampled from it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for index in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def slug(name: str) -> str:
    """Turn a name into a folder name of lower-case letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "checkpoint"
