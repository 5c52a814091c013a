"""How far the finite-difference estimator of COPAL's sensitivity is from the closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from copal_core.methods.criteria.copal import Copal
from copal_core.statistics.accumulators import AbsoluteCoupling


def finite_difference_errors(
    epsilons: Sequence[float], tokens: int = 256, rows: int = 96, columns: int = 64, seed: int = 0
) -> list[float]:
    """Relative error ‖estimate − closed form‖ / ‖closed form‖ of |Y|ᵀ|X| for each relative step.

    Measured on a random linear layer (rows, columns) with random inputs, in float32. The layer is linear, so
    nothing but rounding is lost: the smaller the step, the more of the difference's digits cancel.
    Raises InvalidValueError for a step outside 0 < epsilon <= 1.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) / columns**0.5
    inputs = torch.randn(tokens, columns, generator=generator)
    exact = torch.zeros(rows, columns)
    AbsoluteCoupling().update(exact, inputs, [inputs @ weight.T], None)
    errors = []
    for epsilon in epsilons:
        estimate = torch.zeros_like(exact)
        (estimator,) = Copal("finite-difference", epsilon).statistics()
        estimator.update(estimate, inputs, [], weight)
        errors.append(float((estimate - exact).norm() / exact.norm()))
    return errors
