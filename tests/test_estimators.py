"""The finite-difference estimator's error against its step."""

from __future__ import annotations

import pytest

from copal_core.analysis.estimators import finite_difference_errors
from copal_core.errors import InvalidValueError


def test_small_steps_lose_digits_and_moderate_ones_agree() -> None:
    moderate, small, smallest = finite_difference_errors([3e-2, 3e-5, 3e-7])
    assert moderate < 1e-5
    assert moderate < small < smallest
    assert smallest > 1e-3


def test_the_same_seed_gives_the_same_errors() -> None:
    assert finite_difference_errors([3e-3], seed=4) == finite_difference_errors([3e-3], seed=4)


def test_a_step_of_zero_is_not_a_step() -> None:
    with pytest.raises(InvalidValueError):
        finite_difference_errors([0.0])
