"""Precision of matrix products: statistics in float32 are never silently rounded to TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
