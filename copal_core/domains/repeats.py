"""Finding calibration windows that hold text of the evaluation windows."""

from __future__ import annotations

import numpy as np

RUN = 64  # tokens: a shared run this long is a copy, not a turn of phrase
_SHORTEST = 16  # tokens: shorter windows recur by themselves, and are left alone

_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0xD1342543DE82EF95)


def without_repeats(candidates: np.ndarray, evaluation: np.ndarray) -> np.ndarray:
    """Which candidates share no run of 64 tokens (or whole window, if shorter) with an evaluation window.

    candidates: (n, length), evaluation: (m, other length) token ids. Returns (n,) bool, True = keep.
    """
    run = min(RUN, candidates.shape[1], evaluation.shape[1])
    if run < _SHORTEST:
        return np.ones(len(candidates), dtype=bool)
    known = np.unique(_hashes(evaluation, run))
    repeated = np.isin(_hashes(candidates, run), known)  # (n, runs)
    return np.logical_not(repeated.any(axis=1))


def _hashes(windows: np.ndarray, run: int) -> np.ndarray:
    """A 64-bit hash of every run of `run` tokens inside every window: (n, length - run + 1) uint64.

    The difference of two prefix sums is a run's polynomial; multiplying by the base's inverse powers
    makes it independent of the position. All arithmetic is modulo 2**64 (a collision only drops a window).
    """
    ids = windows.astype(np.uint64) * _MIX
    mixed = (ids ^ (ids >> np.uint64(29))) * _MIX  # (n, length)
    length = windows.shape[1]
    powers = np.cumprod(np.full(length, _BASE, dtype=np.uint64))  # base, base², ...
    sums = np.zeros((len(windows), length + 1), dtype=np.uint64)
    np.cumsum(mixed * powers, axis=1, out=sums[:, 1:])
    inverse = np.uint64(pow(int(_BASE), -1, 2**64))
    shifts = np.cumprod(np.full(length - run + 1, inverse, dtype=np.uint64))
    return (sums[:, run:] - sums[:, : length - run + 1]) * shifts
