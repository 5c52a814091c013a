"""Whether what a file of a run says can be true: a folder may be damaged in ways that still parse."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

STATUSES = ("created", "starting", "waiting", "running", "done", "failed", "cancelled", "interrupted", "none")
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
}
_LARGEST = 2**40  # of any count or share in a state
SOON = datetime.timedelta(minutes=1)


def problem_of_info(info: object) -> str:
    """What is wrong with the description in run.json; nothing when it is sound."""
    if not isinstance(info, dict):
        return "info"
    checkpoint, domains = info.get("checkpoint", {}), info.get("domains", [])
    if not isinstance(checkpoint, dict) or not _sound_checkpoint(checkpoint):
        return "checkpoint"
    if not isinstance(domains, list) or not all(_sound_domain(domain) for domain in domains):
        return "domains"
    texts = [info.get(name) or "" for name in ("title", "note", "created", "group")]
    return "" if all(isinstance(text, str) for text in texts) else "title, note or date"


def _sound_domain(domain: object) -> bool:
    if not isinstance(domain, dict) or not isinstance(domain.get("name"), str):
        return False
    return isinstance(domain.get("notes", []), list) and isinstance(domain.get("content_hash", ""), str)


def _sound_checkpoint(checkpoint: Mapping[str, Any]) -> bool:
    for name in ("blocks", "heads", "kv_heads"):
        value = checkpoint.get(name, 1)
        if type(value) is not int or not 1 <= value <= 100_000:
            return False
    shapes = checkpoint.get("projections", {})
    if not isinstance(shapes, dict) or not all(_sound_shape(shape) for shape in shapes.values()):
        return False
    return all(isinstance(checkpoint.get(name) or "", str) for name in ("name", "dtype"))


def _sound_shape(shape: object) -> bool:
    return (
        isinstance(shape, list | tuple)
        and len(shape) == 2
        and all(type(side) is int and side > 0 for side in shape)
    )


def sound_state(kind: type, content: object) -> bool:
    """Whether `content` has fields of the dataclass `kind` only, with values of their types."""
    if not isinstance(content, dict):
        return False
    known = {field.name: str(field.type) for field in fields(kind)}
    for name, value in content.items():
        if name not in known or type(value) not in _TYPES[known[name]]:
            return False
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < _LARGEST):
            return False
    return content.get("status", "created") in STATUSES and _sound_time(content.get("updated", ""))


def _sound_time(text: str) -> bool:
    try:
        return not text or datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def just_now(updated: str) -> bool:
    """Whether a time is at most a minute from now; a clock that was set back makes it lie in the future."""
    if not updated:
        return True
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(updated)
    return abs(age) <= SOON


def problem_of_rows(kind: type, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The first column in which a row holds what the record `kind` cannot; nothing when all is sound."""
    declared = {field.name: str(field.type) for field in fields(kind)}
    for place, name in enumerate(columns):
        # SQLite has no NaN: it keeps NULL in its place
        allowed = (
            (*_TYPES[declared[name]], type(None)) if declared[name] == "float" else _TYPES[declared[name]]
        )
        if not {type(row[place]) for row in rows} <= set(allowed):
            return name
        if declared[name] == "int" and any(not -1 <= row[place] < 2**62 for row in rows):
            return name
    return ""


def sound_tiles(tiles: Mapping[str, Any]) -> bool:
    """Whether one layer's pooled maps have the shapes and kinds of numbers that they are written with."""
    for name, dimensions in _TILES.items():
        array = tiles.get(name)
        if array is None:
            if name in _NEEDED:
                return False
        elif array.ndim != dimensions or array.dtype.kind not in "fiu" or not array.size:
            return False
    ends = tiles.get("range")
    return len(tiles["histogram"]) == 2 and (
        ends is None or (len(ends) == 2 and ends[0] < ends[1] < math.inf)
    )


_TILES = {
    "log_score": 2, "kept": 2, "histogram": 2, "range": 1, "row_kept": 1, "head_kept": 1, "head_score": 1
}  # fmt: skip
_NEEDED = ("log_score", "kept", "histogram")
