"""The windows drawn from one domain, with their text and a hash that identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sample:
    """Calibration and evaluation windows of one domain, disjoint and de-duplicated.

    Attributes:
        calibration: (count, length) int64 token ids.
        evaluation: (count, length) int64 token ids.
        document_ids: side -> ids of the documents that its windows come from.
        decode: turns token ids into text.
        notes: remarks for the user on how the windows were drawn.
    """

    calibration: np.ndarray
    evaluation: np.ndarray
    document_ids: dict[str, tuple[str, ...]]
    decode: Callable[[list[int]], str] = field(repr=False, compare=False)
    notes: list[str] = field(default_factory=list)

    def calibration_text(self, index: int) -> str:
        """Return calibration window `index` as text."""
        return self.decode(self.calibration[index].tolist())

    def evaluation_text(self, index: int) -> str:
        """Return evaluation window `index` as text."""
        return self.decode(self.evaluation[index].tolist())

    @property
    def documents(self) -> dict[str, int]:
        """Number of documents that the windows of each side come from."""
        return {side: len(ids) for side, ids in self.document_ids.items()}

    @property
    def content_hash(self) -> str:
        """SHA-256 of both arrays: the shape, then the ids as little-endian int64, row by row."""
        digest = hashlib.sha256()
        for windows in (self.calibration, self.evaluation):
            digest.update(repr(windows.shape).encode())
            digest.update(np.ascontiguousarray(windows, dtype="<i8").tobytes())
        return digest.hexdigest()
