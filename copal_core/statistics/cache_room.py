"""Size limit of the statistics in the cache folder: the least recently used ones are deleted first.

COPAL_STATISTICS_GB sets the limit, 8 by default. Deleted statistics can be gathered again from checkpoint and text.
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
_SPARED = 3600.0  # seconds for which used statistics stay, regardless of the limit


def statistics_root() -> Path:
    return cache_root() / "statistics"


def bound() -> int:
    """Return the limit in bytes. Raises InvalidValueError if COPAL_STATISTICS_GB is not a number above 0."""
    text = os.environ.get(_VARIABLE, str(_DEFAULT))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes > 0:
        raise InvalidValueError(f"{_VARIABLE} = '{text[:40]}' is no size; use gigabytes above 0, such as 8")
    return int(gigabytes * 1e9)


def touch(folder: Path) -> None:
    """Mark the statistics in `folder` as used now."""
    if folder.is_dir():
        os.utime(folder)


def make_room(in_use: Collection[Path], now: float | None = None) -> list[Path]:
    """Delete folders, least recently used first, until the total is within the limit.

    Args:
        in_use: folders that stay.
        now: seconds since the epoch; folders used in the hour before stay as well.

    Returns:
        The deleted folders.
    """
    candidates = [path for path in _folders() if path not in set(in_use)]
    total = sum(size_of(path) for path in _folders())
    latest = (time.time() if now is None else now) - _SPARED
    deleted = []
    for path in sorted(candidates, key=lambda path: path.stat().st_mtime):
        if total <= bound() or path.stat().st_mtime > latest:
            break
        total -= size_of(path)
        # the marks of completeness first, so that a partly deleted folder is never mistaken for a complete one
        for complete in path.glob("*/complete.json"):
            complete.unlink()
        shutil.rmtree(path, ignore_errors=True)
        deleted.append(path)
    return deleted


def size_of(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _folders() -> list[Path]:
    root = statistics_root()
    return [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
