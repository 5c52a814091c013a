"""The time as files keep it."""

from __future__ import annotations

import datetime


def now() -> str:
    """Return the UTC time to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
