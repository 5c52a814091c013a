"""Synthetic text for the toy layer: tokens as points in the plane of its two inputs."""

from __future__ import annotations

import numpy as np

from copal_core.errors import InvalidValueError
from pages.learn.toy.layer import Array, gather, keep_highest, score

# four neurons: the direction of each arrow in degrees, and its length
_NEURONS = ((13.0, 2.3), (36.0, 2.0), (58.0, 1.8), (114.0, 2.1))
_LONG, _SHORT = 1.25, 0.38  # standard deviations of a text along and across its direction
WHOLE_TEXT = 400  # tokens that represent a whole text


def layer() -> Array:
    """Return the toy layer's weights, (4, 2): one arrow in the plane of the inputs for each neuron."""
    return np.array([_at(angle, length) for angle, length in _NEURONS])


def fan(spread: float) -> Array:
    """Return neurons of the same lengths, (4, 2), with directions spread over `spread` degrees around 50."""
    angles = 50 + spread * np.array([-0.5, -0.17, 0.2, 0.5])
    return np.array([_at(angle, length) for angle, (_, length) in zip(angles, _NEURONS, strict=True)])


def text(direction: float, tokens: int, seed: int = 0) -> Array:
    """Draw a text that uses the two inputs along a direction.

    Args:
        direction: in degrees; at 0 mostly input 1, at 90 mostly input 2.
        tokens: number of tokens, at least 1.
        seed: equal seeds give equal tokens.

    Returns:
        (tokens, 2).

    Raises:
        InvalidValueError: there are no tokens.
    """
    if tokens < 1:
        raise InvalidValueError(f"a text needs at least one token, got {tokens}")
    random = np.random.default_rng(seed)
    upright = random.standard_normal((tokens, 2)) * (_LONG, _SHORT)
    along, across = _at(direction, 1.0), _at(direction + 90, 1.0)
    return upright @ np.array([along, across])  # (tokens, 2)


def agreement(whole: Array, weight: Array, tokens: int, draws: int = 200) -> float:
    """Return the share of random samples that give the same COPAL mask as the whole text.

    Args:
        whole: (all tokens, 2).
        weight: (neurons, 2).
        tokens: size of a sample, drawn without replacement.
        draws: number of samples.
    """
    wanted = keep_highest(score("copal", weight, gather(whole, weight)))
    random = np.random.default_rng(1)
    same = 0
    for _ in range(draws):
        chosen = whole[random.permutation(len(whole))[:tokens]]
        same += bool((keep_highest(score("copal", weight, gather(chosen, weight))) == wanted).all())
    return same / draws


def sample(whole: Array, tokens: int, seed: int) -> Array:
    """Draw `tokens` tokens of `whole` without replacement, (tokens, 2)."""
    if not 1 <= tokens <= len(whole):
        raise InvalidValueError(f"{tokens} tokens of a text of {len(whole)}; use 1 to {len(whole)}")
    return whole[np.random.default_rng(seed).permutation(len(whole))[:tokens]]


def _at(degrees: float, length: float) -> Array:
    return length * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
