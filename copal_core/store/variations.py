"""Lists of run configurations that differ in something: seeds, calibration sizes, orders of domains, a whole grid."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

from copal_core.config import Method, Protocol, RunConfig, Structure, Windows
from copal_core.errors import InvalidValueError
from copal_core.methods import describe

MOST = 1000  # runs of one group
_SEEDS = 2**31
_ALL_COUNTED = (
    12  # so many domains have far more orders than a group may have; their factorial would be of no use
)
_NAMED = {
    "calibration": "calibration {}",
    "evaluation": "evaluation {}",
    "propagation": "{} propagation",
    "seed": "seed {}",
}


def seeds(config: RunConfig, count: int, calibrations: Sequence[Windows] = ()) -> list[RunConfig]:
    """`count` seeds from the configuration's own on, for each calibration size.

    Raises:
        InvalidValueError: for no seed, for a single run, and for more runs than a group may have.
    """
    if count < 1:
        raise InvalidValueError(f"{count} seeds are none; use at least 1, and 5 to see a spread")
    sizes = list(dict.fromkeys(calibrations)) or [config.protocol.calibration]
    if count * len(sizes) < 2:
        raise InvalidValueError("one seed with one calibration size is one run; ask for more of either")
    check_size(count * len(sizes))
    first = config.protocol.seed
    return [
        _changed(config, protocol=_protocol(config.protocol, calibration=size, seed=(first + step) % _SEEDS))
        for size in sizes
        for step in range(count)
    ]


def orders(config: RunConfig, count: int = 0, seed: int = 0) -> list[RunConfig]:
    """`count` orders of the domains, or all of them with 0; the configuration's own order comes first.

    Raises:
        InvalidValueError: for a single domain or order, and for more orders than a group may have.
    """
    if len(config.domains) < 2:
        raise InvalidValueError("one domain has one order; choose at least two domains")
    if count == 1:
        raise InvalidValueError("1 order is too few to compare; use at least 2")
    return [_changed(config, domains=order) for order in _orders(config.domains, count, seed)]


def _orders(domains: Sequence[str], count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """`count` orders, the given one first and the others drawn by `seed`; all of them with 0."""
    given = tuple(domains)
    possible = math.factorial(min(len(given), _ALL_COUNTED))
    wanted = min(count, possible) or possible
    if not 0 < wanted <= MOST:
        raise InvalidValueError(
            f"orders = {count} is not possible here, of {possible} that there are; use 1 to {min(possible, MOST)}"
        )
    if wanted == possible:
        return list(permutations(given))
    generator, found = random.Random(seed), [given]
    while len(found) < wanted:
        drawn = tuple(generator.sample(given, len(given)))
        if drawn not in found:
            found.append(drawn)
    return found


@dataclass(frozen=True)
class Grid:
    """Every combination of checkpoints, orders, structures, methods and seeds, as runs of one method each.

    A lost worker then costs one point of a figure, and each point opens its run. A method with an amount of its own
    (neurons; low rank with `keep`) is computed once, not once a structure.

    Args:
        orders: how many orders of the domains (1: as given; 0: all).
    """

    checkpoints: Sequence[str]
    domains: Sequence[str]
    methods: Sequence[Method]
    structures: Sequence[Structure]
    seeds: Sequence[int] = (0,)
    orders: int = 1
    protocol: Protocol = Protocol()

    def configs(self) -> list[RunConfig]:
        """Every combination once, in a fixed order. Raises InvalidValueError for an empty or too large grid."""
        for name in ("checkpoints", "domains", "methods", "structures", "seeds"):
            if not getattr(self, name):
                raise InvalidValueError(f"the grid has no {name}; give at least one")
        ordered = _orders(self.domains, self.orders)
        own = sum(describe.has_own_amount(method) for method in self.methods)
        each = len(self.structures) * (len(self.methods) - own) + own
        check_size(len(self.checkpoints) * len(ordered) * len(self.seeds) * each)
        found = {}
        for checkpoint, order, structure, seed, method in product(
            self.checkpoints, ordered, self.structures, self.seeds, self.methods
        ):
            config = RunConfig(
                checkpoint=checkpoint,
                domains=order,
                methods=(method,),
                structure=self.structures[0] if describe.has_own_amount(method) else structure,
                protocol=_protocol(self.protocol, seed=seed),
            )
            found[config.canonical()] = config
        return list(found.values())


def structures(
    texts: Sequence[str], sparsities: Sequence[float] = (), group: Literal["row", "layer"] | None = None
) -> list[Structure]:
    """'unstructured' once for each sparsity (0.5 where there is none), N:M once each.

    Raises InvalidValueError for sparsities, or a group, that would change nothing: where all structures are N:M.
    """
    found = []
    for text in texts:
        asked = text == "unstructured" or "unstructured" not in texts
        found += [
            Structure.parse(text, sparsity, group if asked else None)
            for sparsity in (sparsities if asked and sparsities else (None,))
        ]
    return list(dict.fromkeys(found))


def check_size(count: int) -> None:
    """Raise InvalidValueError for more runs than a group may have."""
    if count > MOST:
        raise InvalidValueError(f"a group of {count} runs is too large; use at most {MOST}")


def varying(configs: Iterable[RunConfig]) -> tuple[str, ...]:
    """Name the settings in which the configurations differ, such as ('structure', 'seed')."""
    values: dict[str, set[str]] = {}
    for config in configs:
        for name, value in _settings(config).items():
            values.setdefault(name, set()).add(value)
    return tuple(name for name, found in values.items() if len(found) > 1)


def in_words(config: RunConfig, names: Collection[str]) -> str:
    """The values of the named settings: 'calibration 16×256, seed 3', or the domains in order."""
    values = _settings(config)
    return ", ".join(_NAMED.get(name, "{}").format(values[name]) for name in values if name in names)


def _settings(config: RunConfig) -> dict[str, str]:
    """All that two runs of a group may differ in, name -> value, as people read it."""
    protocol = config.protocol
    removed = (describe.amount_words(method, config.structure) for method in config.methods)
    return {
        "checkpoint": config.checkpoint,
        "method": ", ".join(map(str, config.methods)),
        "structure": ", ".join(dict.fromkeys(removed)),
        "order": " → ".join(config.domains),
        "calibration": str(protocol.calibration).replace("x", "×"),
        "evaluation": str(protocol.evaluation).replace("x", "×"),
        "propagation": protocol.propagate,
        "dtype": protocol.dtype,
        "seed": str(protocol.seed),
    }


def _changed(config: RunConfig, **values: Any) -> RunConfig:
    return RunConfig(**{**dict(config), **values})


def _protocol(protocol: Protocol, **values: Any) -> Protocol:
    return Protocol(**{**dict(protocol), **values})
