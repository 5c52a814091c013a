"""Facts of methods that are known before one is computed: its cost, its memory, its place in pictures.

Each is a literal in the body of the method's class, so that it can be read from the source (`facts_of`): pages and
estimates ask for facts without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from copal_core.checkpoints.layout import GROUPS
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.stored_size import structure_share
from copal_core.statistics import neurons  # noqa: F401  (registers its statistics)
from copal_core.statistics.accumulators import STATISTICS, Statistic
from copal_core.system.registry import Options, Registry

if TYPE_CHECKING:
    from copal_core.config import Structure

Shapes = Mapping[str, tuple[int, int]]  # projection -> (out, in)
_RECORDS = 2048  # bytes of a block's or layer's records


class Facts:
    """Facts that every method states, with their defaults.

    artifact: kind of what is stored of a block: masks, factors or neurons.
    cost: of calibrating and compressing, in bare forward passes of the blocks over the calibration windows (pruned
        propagation), measured by benchmarks/calibration.py.
    gathers: class names of the statistics that calibration gathers.
    by_row: a row's scores depend on its weights, its statistics and the input alone, so that few rows are at work.
    training: names of options that say how many tokens a step trains on: the sum of each tuple's product.
    updates_weights: weights that stay get new values.
    needs_full_rank: inverts or factorises a Gram matrix, which takes as many tokens as a layer has inputs.
    workspace: bytes for each pair of inputs, and for each weight, of the largest layer while it is computed.
    colour: in every figure, as '#rrggbb'; one follows from the name where none is stated.
    """

    name: ClassVar[str]
    artifact: ClassVar[str]
    cost: ClassVar[float] = 3.0
    gathers: ClassVar[tuple[str, ...]] = ()
    by_row: ClassVar[bool] = False
    training: ClassVar[tuple[tuple[str, ...], ...]] = ()
    updates_weights: ClassVar[bool] = False
    needs_full_rank: ClassVar[bool] = False
    workspace: ClassVar[tuple[int, int]] = (0, 0)
    colour: ClassVar[str] = ""

    def statistics(self) -> tuple[Statistic, ...]:
        """Return the statistics that calibration gathers: those of `gathers`, unless options change them."""
        return tuple(STATISTICS[name]() for name in self.gathers)

    @property
    def training_tokens(self) -> int:
        """Tokens that one step of a run trains on, over all sizes and rounds; 0 for a method that does not train."""
        return self.tokens_trained(vars(self))

    @classmethod
    def tokens_trained(cls, options: Options) -> int:
        """Return the training tokens of one step with these options, defaults standing in for those not given."""
        values = [[float(options.get(name, getattr(cls, name))) for name in names] for names in cls.training]
        return int(sum(map(prod, values)))

    @classmethod
    def gathered_bytes(cls, shapes: Shapes) -> dict[str, int]:
        """Return the bytes of one block's statistics, float32, by input group."""
        kinds, found = [STATISTICS[name] for name in cls.gathers], {}
        for group, names in GROUPS.items():
            rows, columns = sum(shapes[name][0] for name in names), shapes[names[0]][1]
            here = [kind for kind in kinds if kind.groups is None or group in kind.groups]
            found[group] = 4 * sum(prod(kind.size(rows, columns)) for kind in here)
        return found

    @classmethod
    def stored_bytes(cls, shapes: Shapes, structure: Structure, map_size: int) -> float:
        """Return about how many bytes one block takes in a run's folder after one step, statistics apart."""
        raise NotImplementedError


class MaskFacts(Facts):
    """Facts of a criterion: a bit for every weight, maps for the pages, new values where it updates weights."""

    artifact: ClassVar[str] = "masks"
    by_row: ClassVar[bool] = True

    @classmethod
    def stored_bytes(cls, shapes: Shapes, structure: Structure, map_size: int) -> float:
        weights = sum(rows * columns for rows, columns in shapes.values())
        values = 4 * weights * (1 - structure.removed) if cls.updates_weights else 0
        return weights / 8 + len(shapes) * (6 * map_size**2 + _RECORDS) + values


class FactorFacts(Facts):
    """Facts of a decomposition: factors of 16 bits, or the masks that a hybrid chooses."""

    artifact: ClassVar[str] = "factors"
    workspace: ClassVar[tuple[int, int]] = (
        16,
        56,
    )  # measured: the Gram matrix twice, W seven times, 64 bits each

    @classmethod
    def stored_bytes(cls, shapes: Shapes, structure: Structure, map_size: int) -> float:
        weights = sum(rows * columns for rows, columns in shapes.values())
        return weights / 8 + 2 * weights * structure_share(structure) + len(shapes) * _RECORDS


class NeuronFacts(Facts):
    """Facts of a neuron selector: which neurons stay, and the columns of down that took something over."""

    artifact: ClassVar[str] = "neurons"

    @classmethod
    def stored_bytes(cls, shapes: Shapes, structure: Structure, map_size: int) -> float:
        return _RECORDS + (0.4 * prod(shapes["down_proj"]) if cls.updates_weights else 0)


_KINDS: tuple[tuple[Registry[Any], type[Facts]], ...] = (
    (CRITERIA, MaskFacts),
    (LOWRANK, FactorFacts),
    (NEURONS, NeuronFacts),
)


def facts_of(name: str) -> type[Facts]:
    """Return the facts of the method `name`, without options; those of a criterion for an unknown one."""
    for registry, kind in _KINDS:
        if name in registry.names():
            found = registry.facts(name, kind)
            # a statistic of the method's own file is known once that is imported
            return found if STATISTICS.keys() >= set(found.gathers) else registry.get(name)
    return MaskFacts


def criteria_on(statistics: tuple[str, ...]) -> tuple[str, ...]:
    """Return the criteria that need no other statistics than these (class names), in alphabetical order."""
    return tuple(name for name in CRITERIA.names() if set(facts_of(name).gathers) <= set(statistics))
