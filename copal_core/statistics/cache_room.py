"""A bound on what statistics take in the cache folder: those looked at longest ago go first.

COPAL_STATISTICS_GB: the bound, 8 by default. Everything here can be gathered again from the checkpoint and the text.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from copal_core.errors import InvalidValueError
from copal_core.system.paths import cache_root

_VARIABLE, _DEFAULT = "COPAL_STATISTICS_GB", 8.0
_SPARED = 3600.0  # seconds in which what somebody looked at stays, whatever the bound


def statistics_root() -> Path:
    return cache_root() / "statistics"


def bound() -> int:
    """Bytes. Raises InvalidValueError when the environment holds no number of gigabytes."""
    text = os.environ.get(_VARIABLE, str(_DEFAULT))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes > 0:
        raise InvalidValueError(f"{_VARIABLE} = '{text[:40]}' is no size; use gigabytes above 0, such as 8")
    return int(gigabytes * 1e9)


def used(folder: Path) -> None:
    """Note that somebody looks at these statistics now."""
    if folder.is_dir():
        os.utime(folder)


def make_room(in_use: Collection[Path], now: float | None = None) -> list[Path]:
    """Delete folders, least recently used first, until all fit the bound. Returns what went.

    Those `in_use`, and those looked at within the last hour of `now` (seconds since the epoch), always stay.
    """
    found = [path for path in _folders() if path not in set(in_use)]
    total = sum(size_of(path) for path in _folders())
    latest = (time.time() if now is None else now) - _SPARED
    gone = []
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        if total <= bound() or path.stat().st_mtime > latest:
            break
        total -= size_of(path)
        for complete in path.glob(
            "*/complete.json"
        ):  # first, so that a half-deleted folder is never taken for whole
            complete.unlink()
        shutil.rmtree(path, ignore_errors=True)
        gone.append(path)
    return gone


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _folders() -> list[Path]:
    root = statistics_root()
    return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
