"""Thread counts for the kind of work at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: for many small operations, where waking threads costs more than they do.

    On a machine that others use too, each hand-over between threads can wait for a whole time slice.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
