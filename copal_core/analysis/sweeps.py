"""Sweeps: the grid of checkpoints, orders of domains, structures, methods and seeds, as a group of runs.

Every combination is a run of its own with one method, so that a lost worker costs one point and each point opens
its run. The group is the same as for seeds and orders; only who computes it differs (`copal_core.experiment.cluster`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial
from typing import Literal

import numpy as np
import pandas as pd

from copal_core.analysis.results import result_of
from copal_core.config import Method, Protocol, RunConfig, Structure
from copal_core.errors import InvalidValueError, RunError
from copal_core.methods import amounts, stored_size
from copal_core.store.groups import Group
from copal_core.store.run_store import RunStore

KIND = "sweep"
MOST = 1000  # runs of one sweep
COLUMNS = (
    "run", "checkpoint", "order", "structure", "kept", "bytes", "method", "seed",
    "average", "dense_average", "backward_transfer", "stasis", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """What is combined. orders: how many orders of the domains (1: as given; 0: all).

    A method with an amount of its own (neurons; low rank with `keep`) is computed once, not once a structure.
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
        ordered = self._orders()
        own = sum(amounts.has_own_amount(method) for method in self.methods)
        count = len(self.checkpoints) * len(ordered) * len(self.seeds)
        count *= len(self.structures) * (len(self.methods) - own) + own
        if count > MOST:
            raise InvalidValueError(f"a sweep of {count} runs is too large; use at most {MOST}")
        found = {}
        for checkpoint, order, structure, seed, method in product(
            self.checkpoints, ordered, self.structures, self.seeds, self.methods
        ):
            config = RunConfig(
                checkpoint=checkpoint,
                domains=order,
                methods=(method,),
                structure=self.structures[0] if amounts.has_own_amount(method) else structure,
                protocol=Protocol(**{**dict(self.protocol), "seed": seed}),
            )
            found[config.canonical()] = config
        return list(found.values())

    def _orders(self) -> list[tuple[str, ...]]:
        domains = tuple(self.domains)
        possible = factorial(len(domains)) if len(domains) <= 6 else MOST + 1
        if self.orders < 0 or (self.orders == 0 and possible > MOST):
            raise InvalidValueError(
                f"orders = {self.orders} is not possible here; use 1 to {min(possible, MOST)}"
            )
        if self.orders == 0 or self.orders >= possible:
            return list(permutations(domains))
        generator, found = random.Random(0), [domains]
        while len(found) < self.orders:
            drawn = tuple(generator.sample(domains, len(domains)))
            if drawn not in found:
                found.append(drawn)
        return found


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


def outcomes(group: Group) -> pd.DataFrame:
    """One row for each finished run of a sweep, with the columns of `COLUMNS`.

    kept: stored bytes of the decoder layers over their dense bytes at 16 bits a value, index included.
    average, backward_transfer: after the last domain.
    """
    rows = []
    for store in group.stores():
        try:
            if store.state().status == "done":
                rows.append(_row(store))
        except RunError:
            continue  # damaged or deleted meanwhile; the others still count
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(store: RunStore) -> list[object]:
    config, result = store.config, result_of(store)
    method = result["methods"][0]
    dense = [value for value in result["dense"].values() if value is not None]
    kept = method.get("stored_share") or stored_size.structure_share(config.structure)
    return [
        store.id,
        config.checkpoint,
        " → ".join(store.domains),
        amounts.amount_words(config.methods[0], config.structure),
        kept,
        round(kept * _dense_bytes(store)),
        method["method"],
        config.protocol.seed,
        method["average_perplexity"],
        sum(dense) / len(dense) if dense else None,
        method["bwt"],
        method["stasis"][-1] if method["stasis"] else None,
        sum(method["seconds"].values()),
    ]


def _dense_bytes(store: RunStore) -> int:
    described = store.info["checkpoint"]
    weights = sum(rows * columns for rows, columns in described["projections"].values())
    return int(weights * described["blocks"] * stored_size.VALUE_BITS // 8)


def pareto(table: pd.DataFrame, first: str, second: str) -> pd.Series:
    """Whether no other row is at least as low in both columns and lower in one; rows with gaps never are."""
    values = table[[first, second]].to_numpy(dtype=float)
    whole = np.isfinite(values).all(axis=1)
    beaten = [bool(((values <= row).all(axis=1) & (values < row).any(axis=1)).any()) for row in values]
    return pd.Series(whole & ~np.array(beaten, dtype=bool), index=table.index, dtype=bool)
