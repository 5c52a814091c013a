"""The windows that were drawn from one domain, with what is needed to show and to identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Sample:
    """Calibration and evaluation windows of one domain, disjoint and de-duplicated.

    calibration, evaluation: (count, length) int64 token ids.
    document_ids: by side, the documents that the windows come from.
    notes: what the user should know about how the windows were drawn.
    """

    calibration: np.ndarray
    evaluation: np.ndarray
    document_ids: dict[str, tuple[str, ...]]
    decode: Callable[[list[int]], str] = field(repr=False, compare=False)
    notes: list[str] = field(default_factory=list)

    def calibration_text(self, index: int) -> str:
        """Calibration window `index` as text."""
        return self.decode(self.calibration[index].tolist())

    def evaluation_text(self, index: int) -> str:
        """Evaluation window `index` as text."""
        return self.decode(self.evaluation[index].tolist())

    @property
    def documents(self) -> dict[str, int]:
        """How many documents the calibration and the evaluation windows come from."""
        return {side: len(ids) for side, ids in self.document_ids.items()}

    @property
    def content_hash(self) -> str:
        """SHA-256 over both arrays: shapes, then little-endian int64 ids, row by row."""
        digest = hashlib.sha256()
        for windows in (self.calibration, self.evaluation):
            digest.update(repr(windows.shape).encode())
            digest.update(np.ascontiguousarray(windows, dtype="<i8").tobytes())
        return digest.hexdigest()
