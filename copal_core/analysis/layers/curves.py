"""Output error of one layer against stored bytes, for every method and domain, without a forward pass.

error = tr((W − Ŵ) H (W − Ŵ)ᵀ) / tr(W H Wᵀ), with H = XᵀX of the domain it is measured on.

Low rank has closed forms over all ranks at once. With U orthonormal and Ŵ_r = U_r U_rᵀ W the errors of the
dropped directions add up, so that error(r) = Σ_{i>r} u_iᵀ (W H Wᵀ) u_i for every domain's H, whatever text U was
fitted to: svd takes U from W, whitened-svd from W L, and basel orders svd's directions by what they carry.
Masks are measured at some twenty sparsities and joined by a monotone cubic of the logarithm; on large layers
on a sample of rows, which is stated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from copal_core.analysis.layers import compared
from copal_core.analysis.layers.mask_errors import PATTERN, SPARSITIES, MaskErrors, measure_masks
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.linalg import eigh
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.statistics.library import combined

Array = NDArray[np.float64]
_DOUBLE_UP_TO = 2048  # eigenproblems larger than this are solved in single precision: errors exact to 1e-4
_FLOOR = 1e-12


@dataclass(frozen=True)
class Curve:
    """One method measured on one domain. kind: mask or rank, or point for a single N:M structure.

    share: of the dense bytes, increasing. amount: sparsity of a mask, rank of a decomposition. error: relative.
    """

    method: str
    domain: str
    kind: str
    share: Array
    amount: Array
    error: Array


@dataclass(frozen=True)
class Reading:
    """One method on one domain at one budget."""

    method: str
    domain: str
    kind: str
    share: float
    amount: float
    parameters: int
    bytes: int
    error: float

    def in_words(self) -> str:
        """'rank 162 loses 11 % of this layer's output on code'."""
        what = f"rank {self.amount:.0f}" if self.kind == "rank" else f"the {self.method} mask"
        lost = f"{self.error:.2%}" if self.error < 0.0995 else f"{self.error:.0%}"
        return f"{what} loses {lost} of this layer's output on {self.domain}"


@dataclass(frozen=True)
class LayerCurves:
    """Everything about one layer that a budget slider needs.

    fit: the domains whose text the methods were given. spectra: name -> values, descending, relative to the
    largest ('weight', and one for each domain: the singular values of W and of W L). rows: of the layer that
    the masks were measured on. seconds: what computing all of it took.
    """

    shape: tuple[int, int]
    fit: tuple[str, ...]
    curves: tuple[Curve, ...]
    spectra: Mapping[str, Array]
    rows: int
    seconds: float

    @property
    def sampled(self) -> bool:
        """Tell whether the masks' errors come from a part of the rows."""
        return self.rows < self.shape[0]

    def readings(self, share: float) -> list[Reading]:
        """Every method on every domain at `share` of the bytes; N:M points only at a share that fits them.

        Raises InvalidValueError for a share that is not one.
        """
        found = [self._reading(curve, share) for curve in self.curves]
        return [reading for reading in found if reading is not None]

    def _reading(self, curve: Curve, share: float) -> Reading | None:
        rows, columns = self.shape
        amount: float
        if curve.kind == "point":
            if share < curve.share[0]:
                return None
            share, amount, error = (float(values[0]) for values in (curve.share, curve.amount, curve.error))
            parameters = rows * columns * PATTERN[0] // PATTERN[1]
            size = stored_size.pattern_bytes(rows, columns, *PATTERN)
        elif share >= 1:
            share, amount, error = 1.0, 0.0 if curve.kind == "mask" else min(rows, columns), 0.0
            parameters, size = rows * columns, stored_size.dense_bytes(rows, columns)
        elif curve.kind == "rank":
            amount = rank = stored_size.rank_at(rows, columns, share)
            parameters = stored_size.rank_parameters(rows, columns, rank)
            size, error = stored_size.rank_bytes(rows, columns, rank), float(curve.error[rank])
        else:
            amount = stored_size.sparsity_at(share)
            parameters = rows * (columns - round(columns * amount))
            size = stored_size.mask_bytes(rows, columns, parameters)
            error = float(_between(curve, np.array([amount]))[0])
        return Reading(curve.method, curve.domain, curve.kind, share, amount, parameters, size, error)

    def table(self, points: int = 101) -> list[dict[str, float | str]]:
        """Rows of method, domain, share, amount, error over the budget range, for figures and downloads."""
        found: list[dict[str, float | str]] = []
        for curve in self.curves:
            for share, amount, error in _drawn(curve, self.shape, points):
                row = {"method": curve.method, "domain": curve.domain, "kind": curve.kind}
                found.append({**row, "share": share, "amount": amount, "error": error})
        return found


def layer_curves(
    weight: Tensor,
    statistics: Mapping[str, GroupStatistics],
    fit: Sequence[str] = (),
    masks: Sequence[str] = (),
    sparsities: Sequence[float] = SPARSITIES,
    flops: float = 7e10,
) -> LayerCurves:
    """Compute all curves of one layer.

    weight: (out, in). statistics: domain -> Gram matrix and what the masks need. fit: domains that the methods
    are given (all by default); errors are measured on every domain. masks: criteria (all by
    default). flops: spent on measuring masks, beyond which a sample of rows is measured. Raises InvalidValueError for
    an unknown domain or mask.
    """
    started = time.perf_counter()
    fit = tuple(fit or statistics)
    given = combined(statistics, fit)
    known = compared.masks()
    masks = masks or known
    if not set(masks) <= set(known):
        raise InvalidValueError(
            f"masks {sorted(set(masks) - set(known))} have no curve; known: {', '.join(known)}"
        )
    weight = weight.float()
    with torch.no_grad():
        ranked, spectra = _rank_curves(weight, statistics, fit)
        measured = measure_masks(weight, statistics, given, masks, sparsities, flops)
    curves = [*_mask_curves(measured), *ranked]
    seconds = time.perf_counter() - started
    return LayerCurves(
        (weight.shape[0], weight.shape[1]), fit, tuple(curves), spectra, measured.rows, seconds
    )


def _rank_curves(
    weight: Tensor, statistics: Mapping[str, GroupStatistics], fit: Sequence[str]
) -> tuple[list[Curve], dict[str, Array]]:
    """Curves over all ranks 0..k, and the spectra of W and of W L on each domain."""
    rows, columns = weight.shape
    outputs = output_grams(weight, statistics)  # domain -> (k, k)
    own = _precise(_core(weight)[0])
    squares, directions = eigh(own @ own.T)
    given = reduce(torch.add, [outputs[name] for name in fit])
    alone = tuple(outputs) == tuple(fit) and len(outputs) == 1
    # on the text it was fitted to the whitened curve is the spectrum itself: no directions needed
    fitted, whitened = (_eigenvalues(given), None) if alone else eigh(given)
    carried = torch.sum((given @ directions) * directions, dim=0)
    order = carried.argsort(descending=True, stable=True)
    bases = {"svd": directions, "whitened-svd": whitened, "basel": directions[:, order]}
    shares = np.array(
        [
            min(1.0, stored_size.rank_parameters(rows, columns, r) / (rows * columns))
            for r in range(len(own) + 1)
        ]
    )
    ranks = np.arange(len(own) + 1, dtype=np.float64)
    curves = []
    for method, basis in bases.items():
        for name, output in outputs.items():
            carried = fitted if basis is None else torch.sum((output @ basis) * basis, dim=0)
            energies = carried.double().clamp_min(0).numpy()  # (k,)
            total = float(energies.sum()) or 1.0
            left = np.append(energies[::-1].cumsum()[::-1], 0.0) / total  # dropped after rank 0..k
            curves.append(Curve(method, name, "rank", shares, ranks, left))
    spectra = {"weight": _spectrum(squares)}
    for name, output in outputs.items():
        values = fitted if tuple(fit) == (name,) else _eigenvalues(output)
        spectra[name] = _spectrum(values)
    return curves, spectra


def output_grams(weight: Tensor, statistics: Mapping[str, GroupStatistics]) -> dict[str, Tensor]:
    """domain -> R H Rᵀ (k, k) a token, where W = Q R when the layer is tall, and R = W otherwise."""
    core, _ = _core(weight)
    found = {}
    for name, gathered in statistics.items():
        gram = gathered.require("input_gram")
        output = _precise(core) @ _precise(gram, core) @ _precise(core).T
        found[name] = (output + output.T) / (2 * max(gathered.tokens, 1))
    return found


def _core(weight: Tensor) -> tuple[Tensor, Tensor | None]:
    if weight.shape[0] <= weight.shape[1]:
        return weight, None
    basis, core = torch.linalg.qr(weight)
    return core, basis


def _precise(matrix: Tensor, like: Tensor | None = None) -> Tensor:
    """float64 where the layer is small enough for that to be quick."""
    size = max((matrix if like is None else like).shape)
    return matrix.double() if size <= _DOUBLE_UP_TO else matrix.float()


def _eigenvalues(matrix: Tensor) -> Tensor:
    from copal_core.system.torch_settings import one_thread

    if matrix.shape[0] <= 1024:
        with one_thread():
            return torch.linalg.eigvalsh(matrix).flip(0)
    return torch.linalg.eigvalsh(matrix).flip(0)


def _spectrum(squares: Tensor) -> Array:
    values = squares.double().clamp_min(0).sqrt().numpy()
    return values / values[0] if values[0] > 0 else values


def _mask_curves(measured: MaskErrors) -> list[Curve]:
    found = []
    order = np.argsort(-np.asarray(measured.sparsities))  # shares increase
    sparsities = np.asarray(measured.sparsities)[order]
    shares = np.array([stored_size.mask_share(s) for s in sparsities])
    for (method, domain), errors in measured.errors.items():
        found.append(Curve(method, domain, "mask", shares, sparsities, np.asarray(errors)[order]))
    keep, group = PATTERN
    share, removed = np.array([stored_size.pattern_share(keep, group)]), np.array([1 - keep / group])
    for (method, domain), error in measured.points.items():
        found.append(Curve(f"{method} {keep}:{group}", domain, "point", share, removed, np.array([error])))
    return found


def _between(curve: Curve, sparsities: Array) -> Array:
    """Errors of a mask's curve at any sparsities: monotone cubic in the logarithm, 0 at nothing removed."""
    x, y = curve.amount[::-1], np.log(np.maximum(curve.error[::-1], _FLOOR))
    inside = np.exp(PchipInterpolator(x, y)(np.clip(sparsities, x[0], x[-1])))
    below = inside * (sparsities / x[0]) ** 2  # near nothing removed the error falls faster than linearly
    return np.where(sparsities < x[0], below, np.where(sparsities >= 1, 1.0, inside))


def _drawn(curve: Curve, shape: tuple[int, int], points: int) -> list[tuple[float, float, float]]:
    if curve.kind == "point":
        return [(float(curve.share[0]), float(curve.amount[0]), float(curve.error[0]))]
    shares = np.linspace(0.0, 1.0, points)[1:]
    if curve.kind == "rank":
        ranks = np.array([stored_size.rank_at(*shape, share) for share in shares])
        return [(float(s), float(r), float(curve.error[r])) for s, r in zip(shares, ranks, strict=True)]
    sparsities = np.array([stored_size.sparsity_at(share) for share in shares])
    return [
        (float(s), float(a), float(e))
        for s, a, e in zip(shares, sparsities, _between(curve, sparsities), strict=True)
    ]
