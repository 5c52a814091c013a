"""Built-in domains, made from installed texts: they work offline on any machine. One file per domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from copal_core.domains.documents import Document, DomainInfo, stable_fraction
from copal_core.domains.domain import Domain
from copal_core.errors import DomainError
from copal_core.system.registry import Registry


class BuiltIn(Domain):
    """A domain of installed text, a fixed share of which is reserved for training the `tiny` checkpoint.

    A hash of the name of a document's group alone decides if it belongs to that share, so that on no machine a
    document is sampled that `tiny` was trained on.
    """

    description: ClassVar[str]
    training_share: ClassVar[float] = 0.5

    def __init__(self) -> None:
        self.spec = self.name

    @abstractmethod
    def sources(self) -> Iterator[Document]:
        """Yield every document of both shares, in a stable order."""

    def why_not(self) -> str:
        """Return an empty string if the texts are installed, else what is missing and how to get it."""
        return ""

    def group(self, document: Document) -> str:
        """Return the group that decides the document's share; a group is never split."""
        return document.id

    def documents(self) -> Iterator[Document]:
        """Yield the documents that may be sampled. Raises DomainError if the texts are not installed."""
        return self._share(training=False)

    def training_documents(self) -> Iterator[Document]:
        """Yield the documents that `tiny` is trained on, which are never sampled. Raises as `documents` does."""
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
        """Describe the domain for a list."""
        missing = cls().why_not()
        return DomainInfo(cls.name, cls.label, cls.description, available=not missing, why_not=missing)


BUILTINS: Registry[BuiltIn] = Registry("domain", "copal_core.domains.builtin")
