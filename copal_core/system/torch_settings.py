"""Torch's settings while something is computed: exact float32 products, and one thread for small work.

Products of statistics in float32 are never silently rounded to TF32. Torch is imported where it is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_guard = threading.Lock()
_inside: dict[int, int] = {}  # thread -> how deeply it is nested in `one_thread`
_usual = 1


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply float32 matrices as float32 on a GPU, whatever the process has allowed; restored after."""
    import torch

    products = torch.backends.cuda.matmul
    if not hasattr(products, "fp32_precision"):  # torch before 2.9
        before = products.allow_tf32
        products.allow_tf32 = False
        try:
            yield
        finally:
            products.allow_tf32 = before
        return
    allowed = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = allowed


def factor_dtype(tensor: Tensor) -> torch.dtype:
    """The number format in which `add_product` multiplies a tensor: its own 16 bits on a GPU, else float32."""
    import torch

    half = tensor.is_cuda and tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.dtype if half else torch.float32


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Compute total += leftᵀ right in place.

    On a GPU, 16-bit factors are multiplied without conversion: their products are exact in float32, the type
    in which they are summed. Elsewhere both are converted to float32 first.

    Args:
        total: (a, b) float32.
        left: (tokens, a).
        right: (tokens, b).
    """
    import torch

    if factor_dtype(left) == factor_dtype(right) != torch.float32:
        total += torch.mm(left.T, right, out_dtype=torch.float32)
    else:
        total.addmm_(left.float().T, right.float())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, for many small operations where waking threads costs more than they save.

    On a busy machine each hand-over between threads can wait for a whole time slice. The thread count belongs to the
    process, and the app computes for several people at once: the count restored last is the one from before the first
    of them entered.
    """
    import torch

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
