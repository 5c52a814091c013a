"""Folders of runs, uploads and caches on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path


def runs_root() -> Path:
    """Return the folder of runs: $COPAL_RUNS, else a folder in the user's data directory."""
    default = Path.home() / ".local" / "share" / "copal" / "runs"
    return Path(os.environ.get("COPAL_RUNS") or default)


def uploads_root() -> Path:
    """Return the folder of uploaded files."""
    return runs_root() / "uploads"


def cache_root() -> Path:
    """Return $COPAL_CACHE, else the platform's folder for files that can be recomputed."""
    chosen = os.environ.get("COPAL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "copal"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "copal" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "copal"


def process_folder() -> Path:
    """A temporary folder for what has to be a file only as long as this process lives."""
    return Path(_process_folder().name)


@cache
def _process_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="copal-")  # removed when the process ends
