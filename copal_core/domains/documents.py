"""Records of the text domains: documents, pools of documents, and descriptions of domains."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

Report = Callable[[str, int, int], None]  # label, done, total


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        id: the same each time the source is read.
        text: the content.
        side: "calibration" or "evaluation" where the publisher split the source, else None.
    """

    id: str
    text: str
    side: str | None = None


@dataclass(frozen=True)
class DomainInfo:
    """Description of a domain that works without a network; `why_not` says what an unavailable one lacks."""

    name: str
    label: str
    description: str
    available: bool
    why_not: str = ""


@dataclass(frozen=True)
class Pool:
    """Documents to draw windows from; `notes` tell which part of the source was left unread, and why."""

    documents: list[Document]
    notes: list[str] = field(default_factory=list)


def stable_fraction(text: str) -> float:
    """Hash `text` to a number in [0, 1), the same on every machine and Python version."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def name_apart(name: str, taken: Collection[str]) -> str:
    """Return `name`, with a number appended if it is already taken: notes, notes-2, notes-3."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if candidate not in taken)
