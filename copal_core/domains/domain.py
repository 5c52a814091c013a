"""The interface of every text domain: documents, under a name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from copal_core.domains.documents import Document, Pool, Report


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
