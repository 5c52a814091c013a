"""Domains made from what is installed: they work offline, on any machine. One file a domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from copal_core.domains.documents import Document, DomainInfo, stable_fraction
from copal_core.domains.domain import Domain
from copal_core.errors import DomainError
from copal_core.system.registry import Registry


class BuiltIn(Domain):
    """A domain of installed text, of which a stable share is kept apart to train the `tiny` checkpoint.

    A document belongs to that share or not by a hash of its group's name alone, so that whoever samples,
    wherever, never meets a document that `tiny` was trained on.
    """

    description: ClassVar[str]
    training_share: ClassVar[float] = 0.5

    def __init__(self) -> None:
        self.spec = self.name

    @abstractmethod
    def sources(self) -> Iterator[Document]:
        """Every document, in a stable order, whichever share it belongs to."""

    def why_not(self) -> str:
        """Empty when the texts are here; otherwise what is missing and what would do."""
        return ""

    def group(self, document: Document) -> str:
        """What decides the document's share; documents of one group are never parted."""
        return document.id

    def documents(self) -> Iterator[Document]:
        """The documents that may be sampled. Raises DomainError when the texts are not installed."""
        return self._share(training=False)

    def training_documents(self) -> Iterator[Document]:
        """The documents that `tiny` is trained on, never sampled from. Raises as `documents` does."""
        return self._share(training=True)

    def _share(self, training: bool) -> Iterator[Document]:
        missing = self.why_not()
        if missing:
            raise DomainError(f"domain '{self.name}' is not available: {missing}")
        for document in self.sources():
            fraction = stable_fraction(f"{self.name}/{self.group(document)}")
            if (fraction < self.training_share) is training:
                yield document

    @classmethod
    def info(cls) -> DomainInfo:
        """What a list of domains shows."""
        missing = cls().why_not()
        return DomainInfo(cls.name, cls.label, cls.description, available=not missing, why_not=missing)


BUILTINS: Registry[BuiltIn] = Registry("domain", "copal_core.domains.builtin")
