"""What every text domain has in common: documents in, a seeded sample of token windows out."""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from copal_core.config import Windows
from copal_core.domains.sample import Sample

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


class Domain(ABC):
    """A source of text. `spec` finds it again, `name` heads columns, `label` is for people."""

    spec: str
    name: str
    label: str = ""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Every document that may be sampled, in a stable order. Raises DomainError."""

    def pool(self, seed: int, characters: int, report: Report) -> Pool:
        """At least `characters` of text where the source has them; sources too large to hold read less.

        Raises DomainError when the source cannot be read.
        """
        del seed, characters, report
        return Pool(list(self.documents()))

    def most_bytes(self) -> int | None:
        """No more bytes of text than this, known without reading any; None where that is not known."""
        return None

    def refuse_hopeless(self, calibration: Windows, evaluation: Windows) -> None:
        """Raises DomainError where it is known without reading that the text is too short for the windows."""
        from copal_core.domains.sampling import refuse_hopeless

        size = self.most_bytes()
        if size:  # an empty file is refused as such when it is read
            refuse_hopeless(self.name, size, calibration, evaluation)

    def sample(
        self,
        tokenizer: Any,
        calibration: Windows,
        evaluation: Windows,
        seed: int,
        report: Report | None = None,
    ) -> Sample:
        """Seeded calibration and evaluation windows that share no document.

        tokenizer: a transformers tokenizer. Raises DomainError when the source cannot be read or is too short.
        """
        from copal_core.domains.sampling import draw

        return draw(self, tokenizer, calibration, evaluation, seed, report or _silent)


def stable_fraction(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone: the same on every machine and Python version."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _silent(label: str, done: int, total: int) -> None:
    """The report of a caller that asked for none."""


def name_apart(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number behind it where others have it already: notes, notes-2, notes-3."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(one for one in numbered if one not in taken)
