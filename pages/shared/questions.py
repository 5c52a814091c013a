"""Questions too long for a process's arguments: JSON files in <cache>/requests, which its worker reads.

A file is named by its content: the same question is the same file and the same task.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from copal_core.system import files
from copal_core.system.paths import cache_root

_KEPT = 60  # requests; older ones are deleted, with the texts in them


def ask(content: dict[str, Any]) -> str:
    """Write a request; returns its name. Raises RunError when the cache folder cannot be written."""
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache_root() / "requests"
    path = folder / f"{name}.json"
    try:
        os.utime(path)  # asked again: not one of the old ones
    except OSError:
        files.write_json(path, content, durable=False)
        files.keep_newest(folder, "*.json", _KEPT)
    return name


def read(name: str) -> dict[str, Any]:
    """Read a request back. Raises RunError when it is gone or damaged."""
    content: dict[str, Any] = files.read_json(cache_root() / "requests" / f"{name}.json")
    return content
