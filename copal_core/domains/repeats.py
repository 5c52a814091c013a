"""Detection of calibration windows that contain text of the evaluation windows."""

from __future__ import annotations

import numpy as np

RUN = 64  # tokens: a shared run of this length is a copy, not a coincidence
_SHORTEST = 16  # tokens: shorter windows recur by chance and are not compared

_MIX = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0xD1342543DE82EF95)


def without_repeats(candidates: np.ndarray, evaluation: np.ndarray) -> np.ndarray:
    """Select candidates that share no run of 64 tokens (or whole window, if shorter) with an evaluation window.

    Args:
        candidates: (n, length) token ids.
        evaluation: (m, other length) token ids.

    Returns:
        (n,) bool, True for windows to keep.
    """
    run = min(RUN, candidates.shape[1], evaluation.shape[1])
    if run < _SHORTEST:
        return np.ones(len(candidates), dtype=bool)
    known = np.unique(_hashes(evaluation, run))
    repeated = np.isin(_hashes(candidates, run), known)  # (n, runs)
    return np.logical_not(repeated.any(axis=1))


def _hashes(windows: np.ndarray, run: int) -> np.ndarray:
    """Hash every run of `run` tokens within every window: (n, length - run + 1) uint64.

    The difference of two prefix sums, S[i + run] - S[i], is the polynomial Σ_j m_(i+j) b^(i+j+1) of the run that
    starts at i. Multiplying by b^-(i+1) makes it independent of i. All arithmetic is modulo 2**64; a collision
    only drops a window.
    """
    ids = windows.astype(np.uint64) * _MIX
    mixed = (ids ^ (ids >> np.uint64(29))) * _MIX  # (n, length): m
    length = windows.shape[1]
    powers = np.cumprod(np.full(length, _BASE, dtype=np.uint64))  # b, b², ...
    sums = np.zeros((len(windows), length + 1), dtype=np.uint64)
    np.cumsum(mixed * powers, axis=1, out=sums[:, 1:])
    inverse = np.uint64(pow(int(_BASE), -1, 2**64))
    shifts = np.cumprod(np.full(length - run + 1, inverse, dtype=np.uint64))
    return (sums[:, run:] - sums[:, : length - run + 1]) * shifts
