"""Where things lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def runs_root() -> Path:
    """Where runs are kept: $COPAL_RUNS, else the user's data folder."""
    default = Path.home() / ".local" / "share" / "copal" / "runs"
    return Path(os.environ.get("COPAL_RUNS") or default)


def uploads_root() -> Path:
    """Where files that people upload are kept."""
    return runs_root() / "uploads"
