"""Forgetting, place by place: one part of the final model gets its earlier weights back, and the loss is measured.

    returned(part) = loss(final model) - loss(final model with the part's earlier weights)

Restoring everything returns all of the forgetting; what single parts return need not add up to it. All parts are
measured in one pass over the blocks: until its first block a part's model is the final one and shares its hidden
states, and every block's weights are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from copal_core.analysis.diagnosis.ranking import KINDS
from copal_core.checkpoints.backbone import Backbone, swapped
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.errors import InvalidValueError
from copal_core.experiment.evaluation import head_losses
from copal_core.statistics.blockwise import HiddenStates

Weights = Mapping[str, Tensor]
WeightsOf = Callable[[int, nn.Module], Weights]


@dataclass(frozen=True)
class Part:
    """A part of the model that gets its earlier weights back: (block, projection) of every layer."""

    name: str
    layers: frozenset[tuple[int, str]]

    def at(self, block: int) -> set[str]:
        """Its projections in one block."""
        return {projection for index, projection in self.layers if index == block}


@dataclass
class Losses:
    """Loss of every predicted token in nats, (windows, length - 1), of the models that were compared."""

    final: Tensor
    earlier: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


def parts_of(kind: str, blocks: int) -> list[Part]:
    """Blocks one by one, the seven kinds of projection over all blocks, or every single layer.

    Raises InvalidValueError for another kind.
    """
    if kind == "block":
        return [
            Part(f"block {block}", frozenset((block, projection) for projection in PROJECTIONS))
            for block in range(blocks)
        ]
    if kind == "projection":
        return [
            Part(projection, frozenset((block, projection) for block in range(blocks)))
            for projection in PROJECTIONS
        ]
    if kind == "layer":
        return [
            Part(f"block {block} {projection}", frozenset({(block, projection)}))
            for block in range(blocks)
            for projection in PROJECTIONS
        ]
    raise InvalidValueError(f"parts '{kind}' are not known; known: {', '.join(KINDS)}")


@torch.no_grad()
def measure(
    backbone: Backbone,
    windows: Tensor,
    final: WeightsOf,
    earlier: WeightsOf,
    parts: Sequence[Part],
    visit: Callable[[int], None] = lambda index: None,
) -> Losses:
    """Losses of the final and the earlier model, and of the final one with each part restored.

    windows: (windows, length) int64. final, earlier: the weights of one block. visit: called after each block.
    """
    states = HiddenStates(backbone, [windows])
    shared = states.sets[0]  # of the final model; parts that have not begun have the same
    old = list(shared)
    begun: dict[str, list[Tensor]] = {}
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            new_weights, old_weights = dict(final(index, block)), dict(earlier(index, block))
            moved = _moved(new_weights, old_weights)
            with swapped(block, new_weights):
                through = {
                    part.name: states.through(block, begun[part.name])
                    for part in parts
                    if part.name in begun and not part.at(index) & moved
                }
                ahead = states.through(block, shared)
            for part in parts:
                restored = part.at(index) & moved
                if restored:
                    given = begun.get(part.name, shared)
                    with swapped(block, {**new_weights, **{name: old_weights[name] for name in restored}}):
                        through[part.name] = states.through(block, given)
            with swapped(block, old_weights):
                old = states.through(block, old)
        begun, shared = through, ahead
        visit(index)
    found = Losses(head_losses(backbone, shared, windows), head_losses(backbone, old, windows))
    for part in parts:  # a part that nothing moved in is the final model
        found.parts[part.name] = (
            head_losses(backbone, begun[part.name], windows) if part.name in begun else found.final
        )
    return found


def _moved(final: Weights, earlier: Weights) -> set[str]:
    """The projections that the two models do not share."""
    return {name for name in final if not _same(final[name], earlier[name])}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
