"""Findings in a run that deserve a second look: each finding with its place and what to do. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from copal_core.errors import RunError
from copal_core.methods.facts import facts_of
from copal_core.store.run_store import RunStore

_KNOWN = ("damping", "damping-raised", "dead-inputs", "empty-rows")
_BROKEN = 100.0  # times the dense model's perplexity


@dataclass(frozen=True)
class Finding:
    """severity: 'error' (a figure means nothing) or 'warning'. where: method, step, block, projection in words."""

    check: str
    severity: str
    where: str
    found: str
    advice: str


@dataclass(frozen=True)
class Check:
    """One thing that is looked for, in words."""

    name: str
    label: str
    explanation: str
    look: Callable[[RunStore], Iterator[Finding]]


def examine(store: RunStore) -> dict[str, list[Finding]]:
    """check name -> its findings, for every check; an empty list says that it was made and found nothing."""
    return {check.name: list(check.look(store)) for check in CHECKS}


def _warned(check: str, kinds: Collection[str], advice: str) -> Callable[[RunStore], Iterator[Finding]]:
    """Findings from what the run itself warned of, a method's and step's blocks together.

    kinds: of warnings; none stands for all that no other check is about.
    """

    def look(store: RunStore) -> Iterator[Finding]:
        table = store.warnings()
        chosen = table[table["kind"].isin(kinds) if kinds else ~table["kind"].isin(_KNOWN)]
        for (method, step, message), rows in chosen.groupby(["method", "step", "message"], sort=False):
            places = sorted({(int(row.block), str(row.projection)) for row in rows.itertuples()})
            yield Finding(
                check, "warning", f"{_step(store, method, step)}: {_layers(places)}", message, advice
            )

    return look


def _nonfinite(store: RunStore) -> Iterator[Finding]:
    table = store.perplexity()
    for row in table[table["nonfinite_batches"] > 0].itertuples():
        yield Finding(
            "nonfinite",
            "error",
            f"{_step(store, row.method, row.step)}, evaluated on {row.domain}",
            f"{row.nonfinite_batches} evaluation windows gave NaN or infinity; their perplexity means nothing",
            "compute in float32; if that is what was used, remove less, or compare scores within rows",
        )


def _broken(store: RunStore) -> Iterator[Finding]:
    table = store.perplexity()
    dense = table[table["method"] == "dense"].set_index("domain")["perplexity"]
    for row in table[table["method"] != "dense"].itertuples():
        reference = dense.get(row.domain, math.nan)
        if math.isfinite(row.perplexity) and row.perplexity > _BROKEN * reference:
            yield Finding(
                "broken",
                "warning",
                f"{_step(store, row.method, row.step)}, evaluated on {row.domain}",
                f"perplexity {row.perplexity:,.0f}, {row.perplexity / reference:,.0f} times the dense model's",
                "the model is broken rather than pruned: remove less, or use a criterion that looks at text",
            )


def _rank(store: RunStore) -> Iterator[Finding]:
    """A Gram matrix of n tokens has at most rank n."""
    shapes = store.info.get("checkpoint", {}).get("projections", {})
    tokens = store.config.protocol.calibration.tokens
    for method in store.config.methods:
        if not facts_of(method.name).needs_full_rank:
            continue
        for step in range(1, len(store.config.domains) + 1):
            seen = tokens * (step if method.strategy in ("accumulate", "joint") else 1)
            short = {name: columns for name, (_, columns) in shapes.items() if columns > seen}
            if short:
                needed = -(-max(short.values()) // store.config.protocol.calibration.length)
                yield Finding(
                    "rank",
                    "warning",
                    f"{_step(store, str(method), step)}: {', '.join(short)} in every block",
                    f"statistics of {seen:,} tokens for {max(short.values()):,} inputs: at most rank {seen:,}",
                    f"calibrate on at least {needed} windows of this length, better several times as many",
                )


def _empty_rows(store: RunStore) -> Iterator[Finding]:
    table = store.warnings()
    chosen = table[table["kind"] == "empty-rows"]
    for row in chosen.itertuples():
        yield Finding(
            "empty-rows",
            "warning",
            f"{_step(store, row.method, row.step)}: block {row.block}, {_rows_in(store, row)}",
            row.message.partition(";")[0],
            "those outputs are always zero: compare scores within rows, or remove less",
        )


def _rows_in(store: RunStore, row: object) -> str:
    """Name the rows, where the run kept its masks; else the first projection of the group."""
    try:
        masks = store.masks(row.method, int(row.step), int(row.block))  # type: ignore[attr-defined]
    except RunError:
        return f"{row.projection} and what reads the same input"  # type: ignore[attr-defined]
    places = []
    for name, kept in masks.items():
        empty = np.flatnonzero(~kept.any(axis=1))
        if len(empty):
            shown = ", ".join(map(str, empty[:6])) + (" …" if len(empty) > 6 else "")
            places.append(f"{name} row{'s' * (len(empty) > 1)} {shown}")
    return "; ".join(places) or str(row.projection)  # type: ignore[attr-defined]


def _step(store: RunStore, method: str, step: int) -> str:
    names = store.domains
    after = f" after {step}. {names[step - 1]}" if 1 <= step <= len(names) else ""
    return f"{'dense model' if method == 'dense' else method}{after}"


def _layers(places: list[tuple[int, str]]) -> str:
    """block 3 q_proj, ... at most four of them."""
    shown = ", ".join(f"block {block} {projection}" for block, projection in places[:4])
    return shown + (f" and {len(places) - 4} more" if len(places) > 4 else "")


CHECKS = (
    Check(
        "nonfinite",
        "Evaluation windows that are not finite",
        "NaN or infinity in any evaluation window of any step, counted and never left out.",
        _nonfinite,
    ),
    Check(
        "broken",
        "Models that are broken",
        f"Perplexity more than {_BROKEN:.0f} times the dense model's.",
        _broken,
    ),
    Check(
        "damping-raised",
        "Damping raised",
        "A Gram matrix could not be factorised with the damping asked for, and more was added.",
        _warned(
            "damping-raised",
            ("damping-raised", "damping"),
            "calibrate on more windows, so that every input direction is seen",
        ),
    ),
    Check(
        "rank",
        "Statistics of too low a rank",
        "Fewer calibration tokens than a layer has inputs, for methods that invert or factorise the Gram matrix.",
        _rank,
    ),
    Check(
        "dead-inputs",
        "Dead inputs",
        "Inputs of a layer that no calibration token made active; methods that invert the Gram matrix watch for them.",
        _warned(
            "dead-inputs", ("dead-inputs",), "calibrate on more, or more varied, text; these weights go first"
        ),
    ),
    Check(
        "empty-rows",
        "Rows pruned to nothing",
        "Outputs of a layer that lost every weight and are always zero.",
        _empty_rows,
    ),
    Check(
        "other",
        "Other warnings of the run",
        "Whatever else a method warned of while it computed.",
        _warned("other", (), "read what the method says; its page explains the terms"),
    ),
)
