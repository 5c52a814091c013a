"""One weight, from the file that was gathered of its layer: plain numbers, read a row at a time. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from copal_core.analysis.diagnosis.kept import Result
from copal_core.checkpoints.cache import slug
from copal_core.config import Structure
from copal_core.errors import InvalidValueError, RunError
from copal_core.store.run_store import RunStore
from copal_core.system import files
from copal_core.system.paths import cache_root

MOST_TOKENS = 1024  # of each domain, whose inputs and outputs are kept
_BAND_BYTES = 192 * 2**20
_LAYERS_KEPT = 12

Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """One linear layer."""

    block: int
    projection: str

    def __str__(self) -> str:
        return f"block {self.block} {self.projection}"


def evidence_file(store: RunStore, place: Place, decision: Result | None = None) -> Path:
    """Where a layer's evidence is kept, or how one result decided it; a run that went on has another file."""
    identity = [store.id, str(store.folder), *store.records.version(), place.block, place.projection]
    identity += [decision.method, decision.step] if decision else []
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    kind = "decision" if decision else "layer"
    return cache_root() / "diagnosis" / f"{kind}-{slug(store.id)[:40]}-{key}.safetensors"


def forget_old(newest: Path) -> None:
    """Keep the last few files: they can be gathered again."""
    files.keep_newest(newest.parent, f"{newest.name.partition('-')[0]}-*", _LAYERS_KEPT)


def band_of(row: int, rows: int, columns: int, arrays: int) -> slice:
    """The rows around `row` for which so many arrays of (rows, columns) float32 fit; all of a layer that is small."""
    fit = max(1, _BAND_BYTES // (4 * columns * max(1, arrays)))
    if fit >= rows:
        return slice(0, rows)
    first = min(max(0, row - fit // 2), rows - fit)
    return slice(first, first + fit)


@dataclass(frozen=True)
class Standing:
    """A weight among those it was compared with, smallest first. rank: 1 is the lowest score of `among`.

    threshold: the largest score that goes, None where none does. margin: score over threshold; above 1 it stays.
    """

    score: float
    rank: int
    among: int
    removed: int
    threshold: float | None
    stays: bool

    @property
    def margin(self) -> float | None:
        return self.score / self.threshold if self.threshold else None


def standing(scores: Array, column: int, structure: Structure, threshold: float | None) -> Standing:
    """Where one weight stands. scores: (in,) of its row. threshold: of the layer, where that is what is compared.

    Compared within the layer, the rank is still that within the row.
    """
    group = slice(0, len(scores))
    if structure.kind == "n:m":
        first = column // structure.group_size * structure.group_size
        group = slice(first, first + structure.group_size)
    compared = np.asarray(scores[group], dtype=np.float64)
    own, place = float(scores[column]), column - group.start
    order = np.lexsort((np.arange(len(compared)), compared))  # equal scores: the lower index goes first
    rank = int(np.flatnonzero(order == place)[0]) + 1
    if structure.kind == "n:m":
        removed = structure.group_size - structure.keep
    else:
        removed = round(len(compared) * structure.sparsity)
    if structure.kind == "n:m" or structure.group == "row":
        limit = float(compared[order[removed - 1]]) if removed else None
        return Standing(own, rank, len(compared), removed, limit, rank > removed)
    value = -np.inf if threshold is None else threshold
    limit = value if np.isfinite(value) else None
    below = int((compared <= value).sum())
    return Standing(own, rank, len(compared), below, limit, own > value)


class Evidence:
    """A gathered layer. Rows are those of the whole layer; `rows` says which of them are there."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RunError("this layer has not been read yet; read it first")
        self._path = path

    @cached_property
    def _open(self) -> Any:
        return safe_open(self._path, framework="numpy")

    @cached_property
    def _names(self) -> set[str]:
        return set(self._open.keys())

    @cached_property
    def about(self) -> dict[str, Any]:
        return dict(json.loads((self._open.metadata() or {})["about"]))

    @cached_property
    def results(self) -> list[Result]:
        return [Result(method, step) for method, step in self.about.get("results", [])]

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(rows that are there, in)."""
        rows, columns = self._open.get_slice("weight").get_shape()
        return int(rows), int(columns)

    @cached_property
    def rows(self) -> range:
        first = int(self.number("first"))
        return range(first, first + self.shape[0])

    def has(self, name: str) -> bool:
        return name in self._names

    def row(self, name: str, row: int) -> Array:
        """One row of an array of the layer. Raises InvalidValueError for a row that was not gathered."""
        if row not in self.rows:
            raise InvalidValueError(
                f"output {row} is not among those read ({self.rows.start} to {self.rows.stop - 1}); read it first"
            )
        place = row - self.rows.start
        return np.asarray(self._open.get_slice(name)[place : place + 1][0])

    def whole(self, name: str) -> Array:
        return np.asarray(self._open.get_tensor(name))

    def number(self, name: str) -> float:
        """An array of one number; the file format knows no fewer than one dimension."""
        return float(np.ravel(self.whole(name))[0])

    def tile(self, name: str, rows: range, columns: range) -> Array:
        """A rectangle of a (rows, in) array."""
        first = self.rows.start
        found = self._open.get_slice(name)[
            rows.start - first : rows.stop - first, columns.start : columns.stop
        ]
        return np.asarray(found)

    # -- questions -----------------------------------------------------------------------------------

    def value(self, row: int, column: int) -> float:
        """The dense weight."""
        return float(self.row("weight", row)[column])

    def after(self, number: int, row: int, column: int) -> float | None:
        """The weight after result `number`; None where that has no such weight."""
        if not self.has(f"removed.{number}"):
            return None
        if self.has(f"value.{number}"):
            return float(self.row(f"value.{number}", row)[column])
        gone = np.unpackbits(self.row(f"removed.{number}", row), count=self.shape[1])[column]
        return 0.0 if gone else self.value(row, column)

    def removed_tile(self, number: int, rows: range, columns: range) -> Array:
        """True where result `number` has no weight any more."""
        first = self.rows.start
        packed = np.asarray(self._open.get_slice(f"removed.{number}")[rows.start - first : rows.stop - first])
        bits = np.unpackbits(packed, axis=1, count=self.shape[1])
        return bits[:, columns.start : columns.stop].astype(bool)

    def standing(
        self, criterion: str, domain: int, row: int, column: int, structure: Structure
    ) -> Standing | None:
        """Under a criterion's usual settings on one domain (from 0); None where it has no answer."""
        name = f"score.{criterion}.{domain}"
        if not self.has(name):
            return None
        key = f"threshold.{criterion}.{domain}"
        threshold = self.number(key) if self.has(key) else None
        return standing(self.row(name, row), column, structure, threshold)

    def standings(
        self, criteria: Sequence[str], store: RunStore, row: int, column: int
    ) -> list[tuple[str, str, Standing]]:
        """Return (criterion, domain, standing) for all criteria and domains of the run that have an answer."""
        found = []
        for criterion in criteria:
            for number, domain in enumerate(store.domains):
                standing = self.standing(criterion, number, row, column, store.config.structure)
                if standing is not None:
                    found.append((criterion, domain, standing))
        return found

    def strongest(self, domain: int, row: int, column: int, count: int = 10) -> list[Moment]:
        """The tokens at which |y||x| of this weight's output and input is largest."""
        x = np.asarray(self._open.get_slice(f"inputs.{domain}")[column : column + 1][0], dtype=np.float64)
        y = np.asarray(self.row(f"outputs.{domain}", row), dtype=np.float64)
        product = np.abs(x) * np.abs(y)
        total = float(product.sum())
        order = np.argsort(-product, kind="stable")[:count]
        return [
            Moment(
                int(i),
                float(x[i]),
                float(y[i]),
                float(product[i]),
                float(product[i]) / total if total else 0.0,
            )
            for i in order
            if product[i] > 0
        ]

    def context(self, domain: int, token: int, length: int, around: int = 9) -> tuple[str, str, str]:
        """The text before a token, its own, and after, within its window of `length` tokens."""
        pieces = self.about["pieces"][domain]
        first = token // length * length
        before = pieces[max(first, token - around) : token]
        after = pieces[token + 1 : min(first + length, token + 1 + around)]
        return "".join(before), pieces[token], "".join(after)


@dataclass(frozen=True)
class Moment:
    """One token's part in a weight's COPAL score: x its input, y its output. share: of the sum over all tokens."""

    token: int
    x: float
    y: float
    product: float
    share: float


def events(values: Sequence[float | None], dense: float) -> list[str]:
    """What happened to a weight at each step of one method: kept, dropped, still out, revived, changed or absent."""
    found, before = [], True
    for value in values:
        if value is None:
            found.append("absent")
            continue
        there = value != 0 or dense == 0
        if there and before:
            found.append("kept" if value == dense else "changed")
        elif there:
            found.append("revived")
        else:
            found.append("dropped" if before else "still out")
        before = there
    return found
