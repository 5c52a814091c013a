"""Interface of every text domain: a named source of documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from copal_core.domains.documents import Document, Pool, Report


class Domain(ABC):
    """A source of text.

    Attributes:
        spec: the specification from which `find` rebuilds the domain.
        name: short name, used as a column header.
        label: name shown to people.
    """

    spec: str
    name: str
    label: str = ""

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Yield every document that may be sampled, in a stable order. Raises DomainError."""

    def pool(self, seed: int, characters: int, report: Report) -> Pool:
        """Return at least `characters` of text if the source has that much; large sources are read in part.

        Args:
            seed: chooses the part of a large source that is read.
            characters: text needed.
            report: receives label, done and total.

        Raises:
            DomainError: the source cannot be read.
        """
        del seed, characters, report
        return Pool(list(self.documents()))

    def most_bytes(self) -> int | None:
        """Return an upper bound of the text's size in bytes, without reading it; None where there is none."""
        return None
