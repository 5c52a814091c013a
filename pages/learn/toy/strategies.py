"""The four continual strategies on the toy layer: the statistics that each step uses, and the weights it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from copal_core.errors import InvalidValueError
from pages.learn.toy.layer import Array, Mask, Sums, gather, keep_highest, score

STRATEGIES = ("sequential", "restart", "accumulate", "joint")


@dataclass(frozen=True)
class Step:
    """One step: the weights that were scored, their scores, and the mask. All (neurons, inputs)."""

    scored: Array
    scores: Array
    kept: Mask

    @property
    def pruned(self) -> Array:
        """The layer after the step."""
        return self.scored * self.kept


def walk(
    weight: Array, texts: Sequence[Array], strategy: str, criterion: str = "copal", keep: int = 1
) -> list[Step]:
    """Prune for one text after another.

    Args:
        weight: the dense layer, (neurons, inputs).
        texts: (tokens, inputs) each.
        strategy: one of STRATEGIES.
        criterion: magnitude, wanda or copal.
        keep: weights kept in each neuron.

    Returns:
        One step per text.

    Raises:
        InvalidValueError: the strategy or the criterion is unknown.
    """
    if strategy not in STRATEGIES:
        raise InvalidValueError(f"strategy '{strategy}' is not known here; known: {', '.join(STRATEGIES)}")
    steps: list[Step] = []
    memory: Sums | None = None
    for number, text in enumerate(texts, start=1):
        scored = steps[-1].pruned if strategy == "sequential" and steps else weight
        new = gather(text, scored)
        if strategy == "accumulate":
            new = memory = new if memory is None else memory.plus(new)
        elif strategy == "joint":  # reads the past texts again
            new = reduce(Sums.plus, (gather(past, weight) for past in texts[:number]))
        scores = score(criterion, scored, new)
        steps.append(Step(scored, scores, keep_highest(scores, keep)))
    return steps
