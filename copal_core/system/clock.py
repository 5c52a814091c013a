"""Timestamps as they are written to files."""

from __future__ import annotations

import datetime


def now() -> str:
    """Return the current UTC time to the second, in ISO 8601 form."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
