"""A user's own file as a domain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from copal_core.domains.documents import Document, Pool, Report
from copal_core.domains.domain import Domain
from copal_core.domains.readers import READERS
from copal_core.errors import DomainError
from copal_core.system import sharing


class FileDomain(Domain):
    """A .txt, .md, .jsonl, .csv or .parquet file; a table's column follows a hash: `data.csv#body`."""

    def __init__(self, spec: str) -> None:
        """Locate the file without reading it. Raises DomainError if it does not exist or its format is unknown."""
        self.path, self.column = _parse(spec)
        self.name = self.path.name + (f"#{self.column}" if self.column else "")
        self.label = self.name
        if self.path.suffix.lower() not in READERS:
            raise DomainError(
                f"'{self.path.name}' is of no known format; use {', '.join(READERS)} (a table's column after a hash)"
            )
        refused = sharing.why_not_path(self.path, uploads=True)
        if refused is not None:
            raise DomainError(refused)
        if not os.path.exists(self.path):  # also False for an impossible file name
            raise DomainError(f"file '{self.path}' does not exist; check the path")
        if not self.path.is_file():
            raise DomainError(f"'{self.path}' is not a file; give the path of one {self.path.suffix} file")
        # absolute, so that a run resumed or branched from another folder finds the same file
        self.path = Path(os.path.abspath(self.path))
        self.spec = str(self.path) + (f"#{self.column}" if self.column else "")

    def documents(self) -> Iterator[Document]:
        """Yield all documents, or those that seed 0 selects from a large file. Raises DomainError."""
        yield from self.pool(0, 0, lambda label, done, total: None).documents

    def pool(self, seed: int, characters: int, report: Report) -> Pool:
        """Read the file. Raises DomainError if it is empty, unreadable, not UTF-8, binary, or lacks the column."""
        try:
            if self.path.stat().st_size == 0:
                raise DomainError(f"'{self.path.name}' is empty; choose a file with text in it")
            return READERS[self.path.suffix.lower()](self.path, self.column, seed, characters, report)
        except OSError as error:
            raise DomainError(f"'{self.path}' cannot be read: {error.strerror or error}") from None

    def most_bytes(self) -> int | None:
        """Return the file's size; None for a compressed format."""
        if self.path.suffix.lower() == ".parquet":
            return None
        try:
            return self.path.stat().st_size
        except OSError:
            return None  # the error is reported when the file is read


def _parse(spec: str) -> tuple[Path, str | None]:
    """Split a specification into path and column; a hash within the name of an existing file is left alone."""
    if "\0" in spec:
        raise DomainError("a file's path holds a zero byte; check the path")
    whole = Path(os.path.expanduser(spec))
    path, hash_sign, column = spec.rpartition("#")
    if not hash_sign or os.path.exists(whole):
        return whole, None
    return Path(os.path.expanduser(path)), column or None
