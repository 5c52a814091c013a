"""Partial reading of a large file: regions spread over all of it, chosen by the seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from copal_core.domains.decoding import whole_characters
from copal_core.domains.documents import Report

WHOLE = 8 * 2**20  # bytes: files up to this size are read whole
_REGION = 64 * 2**10  # bytes


def regions(path: Path, seed: int, amount: int, report: Report) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, whole lines) of disjoint regions that together hold about `amount` bytes.

    The file is divided into strata of equal size, and one region is read at a random position of each. A region
    without line ends is cut between characters instead.

    Args:
        path: the file.
        seed: decides the positions.
        amount: bytes to read in total.
        report: receives label, done and total.
    """
    size = path.stat().st_size
    count = max(2, min(-(-amount // _REGION), size // (2 * _REGION)))
    stratum = size // count
    generator = np.random.default_rng(seed)
    with path.open("rb") as file:
        for number in range(count):
            report(f"reading {path.name}", number, count)
            start = number * stratum + int(generator.integers(stratum - _REGION + 1))
            file.seek(start)
            content = file.read(_REGION)
            first, last = content.find(b"\n"), content.rfind(b"\n")
            if 0 <= first < last:
                yield start + first + 1, content[first + 1 : last + 1]
            else:
                yield start, whole_characters(content)
