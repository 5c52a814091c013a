"""Documents, pools of them, and what describes a domain."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

Report = Callable[[str, int, int], None]  # label, done, total


@dataclass(frozen=True)
class Document:
    """One text with an id that stays the same from one reading to the next.

    side: "calibration" or "evaluation" where the source's publisher parted them, else None.
    """

    id: str
    text: str
    side: str | None = None


@dataclass(frozen=True)
class DomainInfo:
    """One line of the list of domains that work without a network."""

    name: str
    label: str
    description: str
    available: bool
    why_not: str = ""


@dataclass(frozen=True)
class Pool:
    """Documents to draw windows from; `notes` say what was left unread, and why."""

    documents: list[Document]
    notes: list[str] = field(default_factory=list)


def stable_fraction(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone: the same on every machine and Python version."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def name_apart(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number behind it where others have it already: notes, notes-2, notes-3."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(one for one in numbered if one not in taken)
