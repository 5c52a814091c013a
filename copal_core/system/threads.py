"""Torch's thread count for work made of many small operations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_guard = threading.Lock()
_inside: dict[int, int] = {}  # thread -> how deeply it is nested in `one_thread`
_usual = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, for many small operations where waking threads costs more than they save.

    On a busy machine each hand-over between threads can wait for a whole time slice. The thread count belongs to the
    process, and the app computes for several people at once: the count restored last is the one from before the first
    of them entered.
    """
    global _usual
    me = threading.get_ident()
    with _guard:
        if not _inside:
            _usual = torch.get_num_threads()
        _inside[me] = _inside.get(me, 0) + 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _guard:
            _inside[me] -= 1
            if not _inside[me]:
                del _inside[me]
                torch.set_num_threads(_usual)
