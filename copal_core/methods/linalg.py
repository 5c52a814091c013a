"""Matrix factorisations in float64, shared by the decompositions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from copal_core.errors import NumericalError
from copal_core.system.torch_settings import one_thread

_ONE_THREAD_UP_TO = 1024  # smaller problems lose more time to thread hand-overs than they gain
_EXACT_UP_TO = 64  # rows: smaller layers use the singular value decomposition itself
_FIRST_DAMPING = 1e-10
_LAST_DAMPING = 1.0


@dataclass(frozen=True)
class Whitening:
    """Cholesky factor L of H + damping · mean diagonal · I = L Lᵀ.

    Attributes:
        lower: L, (in, in) float64 lower triangular.
        damping: share of the mean diagonal; 0 if none was needed.
        warnings: kind -> message, if damping was needed.
    """

    lower: Tensor
    damping: float
    warnings: dict[str, str] = field(default_factory=dict)


def whiten(gram: Tensor) -> Whitening:
    """Compute the Cholesky factor of a Gram matrix, damped only if the matrix is singular.

    Args:
        gram: (in, in).

    Raises:
        NumericalError: the matrix is not finite, or stays singular with a damping of 1.
    """
    H = gram.double()
    H = (H + H.T) / 2  # a product in float32 is symmetric only up to rounding
    if not bool(torch.isfinite(H).all()):
        raise NumericalError("the Gram matrix is not finite; the calibration overflowed; use float32")
    scale = float(H.diagonal().mean()) or 1.0
    lower, failed = torch.linalg.cholesky_ex(H)
    damping = 0.0
    # pivots at rounding level are noise, and so is a factor built on them
    while int(failed) or float(lower.diagonal().square().min()) < 1e-13 * scale:
        damping = damping * 10 if damping else _FIRST_DAMPING
        if damping > _LAST_DAMPING:
            raise NumericalError("the Gram matrix stays singular with damping 1; calibrate on more windows")
        damped = H.clone()
        damped.diagonal().add_(damping * scale)
        lower, failed = torch.linalg.cholesky_ex(damped)
    if not damping:
        return Whitening(lower, 0.0)
    why = "the Gram matrix is singular (too few tokens, or dead inputs)"
    return Whitening(lower, damping, {"damping": f"{why}: damped by {damping:.0e} of its mean diagonal"})


def truncate(weight: Tensor, metric: Tensor | None, rank: int) -> tuple[Tensor, Tensor, float]:
    """Find the matrix of rank r nearest to W in the norm ‖(W − Ŵ) L‖.

    Truncating the SVD W L = U Σ Vᵀ and undoing L gives U_r Σ_r V_rᵀ L⁻¹, which equals U_r U_rᵀ W. The inverse is
    never formed, so that an ill-conditioned L does no harm.

    Args:
        weight: W, (out, in) float64.
        metric: L, (in, in) lower triangular; None for the identity.
        rank: r.

    Returns:
        left (out, r) and right (r, in), whose product is Ŵ, and the discarded share of ‖W L‖².
    """
    left, energies = output_directions(weight, metric)
    kept = left[:, :rank]
    total = float(energies.sum())
    discarded = float(energies[rank:].sum()) / total if total > 0 else 0.0
    return kept, kept.T @ weight, discarded


def output_directions(weight: Tensor, metric: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute left singular vectors and squared singular values of W L.

    Larger layers use the eigenvectors of (W L)(W L)ᵀ, which is several times faster in float64. σ² is then exact to
    1e-14 of the largest, which is 1e-4 of the truncated part unless that part is below 1e-10 of the output.

    Args:
        weight: W, (out, in) float64.
        metric: L, (in, in) lower triangular; None for the identity.

    Returns:
        U (out, k) orthonormal and σ² (k,), descending; k = min(out, in).
    """
    basis, core = None, weight
    if weight.shape[0] > weight.shape[1]:  # tall: reduce to the square part by W = Q R first
        basis, core = torch.linalg.qr(weight)
    product = core if metric is None else core @ metric
    if product.shape[0] <= _EXACT_UP_TO:
        left, values, _ = svd(product)
        energies = values.square()
    else:
        energies, left = eigh(product @ product.T)
        energies = energies.clamp_min(0)
        left = left * _signs(left)
    return (left if basis is None else basis @ left), energies


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (m, k), σ (k,) descending and Vᵀ (k, n), with signs fixed so that results are reproducible."""
    if min(matrix.shape) <= _ONE_THREAD_UP_TO:
        with one_thread():
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    sign = _signs(left)
    return left * sign, values, right * sign.T


def _signs(vectors: Tensor) -> Tensor:
    """Return the signs ±1, (1, k), that make the entry of largest magnitude in every column positive."""
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (k,), descending, and eigenvectors (k, k), in columns, of a symmetric matrix."""
    if matrix.shape[0] <= _ONE_THREAD_UP_TO:
        with one_thread():
            values, vectors = torch.linalg.eigh(matrix)
    else:
        values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), vectors.flip(1)
