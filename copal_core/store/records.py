"""The tables of a run's measurements: one SQLite file, read back as data frames."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from copal_core.errors import RunError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PerplexityRecord:
    """Perplexity on one domain after one step (step 0, method 'dense': the dense model)."""

    method: str
    step: int
    domain: str
    perplexity: float
    mean_nats: float
    tokens: int
    nonfinite_batches: int


@dataclass(frozen=True)
class LayerRecord:
    """One linear layer after one step of one method; counts are of weights."""

    method: str
    step: int
    block: int
    projection: str
    rows: int
    columns: int
    weights: int
    pruned: int
    score_mean: float
    score_domain_mean: float
    score_p05: float
    score_p50: float
    score_p95: float
    threshold_p05: float | None
    threshold_p50: float | None
    threshold_p95: float | None
    stay_pruned: int | None
    revived: int | None
    newly_pruned: int | None


@dataclass(frozen=True)
class OverlapRecord:
    """Agreement of two methods' masks of one layer and step."""

    step: int
    method_a: str
    method_b: str
    block: int
    projection: str
    both_pruned: int
    either_pruned: int


@dataclass(frozen=True)
class WarningRecord:
    """Something a reader should know before believing a figure."""

    method: str
    step: int
    block: int
    projection: str
    kind: str
    message: str


@dataclass(frozen=True)
class SecondsRecord:
    """Wall-clock seconds one phase of one block (or of one evaluation, block -1) took."""

    method: str
    step: int
    block: int
    phase: str
    seconds: float


@dataclass(frozen=True)
class FactorRecord:
    """One linear layer of one step of a low-rank method, stored at 16 bits a value.

    kind: rank, mask (a hybrid's choice) or dense (where factors would be larger). output_error: relative, on the
    newest domain's Gram matrix (of trained factors: on the one that they were made with), None where that is not
    gathered; alternative_error: of what a hybrid did not choose. discarded_energy: share that the truncation predicts
    in its own metric.
    """

    method: str
    step: int
    block: int
    projection: str
    kind: str
    rows: int
    columns: int
    rank: int
    parameters: int
    bytes: int
    output_error: float | None
    alternative_error: float | None
    damping: float
    discarded_energy: float


@dataclass(frozen=True)
class NeuronRecord:
    """The feed-forward layer of one block after one step of a neuron method; counts are of hidden neurons.

    parameters, bytes: of gate, up and down as they remain, at 16 bits a value. information_*: nats that the removed
    neurons shared with their twins, None without twins. output_error: of down_proj, relative, on the newest domain's
    Gram matrix, None where that is not gathered. The last three compare with the step before.
    """

    method: str
    step: int
    block: int
    neurons: int
    removed: int
    parameters: int
    bytes: int
    information_min: float | None
    information_mean: float | None
    information_max: float | None
    output_error: float | None
    stay_removed: int | None
    revived: int | None
    newly_removed: int | None


@dataclass(frozen=True)
class TrainingRecord:
    """The finished training of one step: written in the same transaction as the layers of the trained factors.

    tokens: trained on, counted again in every pass; 0 when there was nothing to train. distinct_tokens: of text, each
    counted once. stopped: why it ended early, else empty.
    """

    method: str
    step: int
    tokens: int
    distinct_tokens: int
    stopped: str


@dataclass(frozen=True)
class LossRecord:
    """Mean nats a token of one training step, numbered from 1."""

    method: str
    step: int
    number: int
    nats: float


@dataclass(frozen=True)
class BlockRecord:
    """A block that is finished: written in the same transaction as what was measured of it."""

    method: str
    step: int
    block: int


Record = (
    PerplexityRecord
    | LayerRecord
    | OverlapRecord
    | WarningRecord
    | SecondsRecord
    | FactorRecord
    | NeuronRecord
    | TrainingRecord
    | LossRecord
    | BlockRecord
)

TABLES: dict[str, tuple[type, tuple[str, ...]]] = {
    "perplexity": (PerplexityRecord, ("method", "step", "domain")),
    "layers": (LayerRecord, ("method", "step", "block", "projection")),
    "overlaps": (OverlapRecord, ("step", "method_a", "method_b", "block", "projection")),
    "warnings": (WarningRecord, ("method", "step", "block", "projection", "kind")),
    "seconds": (SecondsRecord, ("method", "step", "block", "phase")),
    "factors": (FactorRecord, ("method", "step", "block", "projection")),
    "neurons": (NeuronRecord, ("method", "step", "block")),
    "training": (TrainingRecord, ("method", "step")),
    "losses": (LossRecord, ("method", "step", "number")),
    "blocks": (BlockRecord, ("method", "step", "block")),
}
_HEADER, _COUNTER = 28, slice(24, 28)  # bytes of SQLite's file format: its change counter
_NAMES = {record: name for name, (record, _) in TABLES.items()}
# a record's annotation -> SQLite's type, and the values that a sound file holds; NaN is kept as NULL
_CELLS: dict[Any, tuple[str, Any]] = {
    str: ("TEXT", str),
    int: ("INTEGER", Annotated[int, Field(ge=-1, lt=2**62)]),
    float: ("REAL", float | None),
    int | None: ("INTEGER", int | None),
    float | None: ("REAL", float | None),
}


class Records:
    """Reads and writes one SQLite file. Every write is one transaction: all its records or none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, records: Sequence[Record]) -> None:
        """Insert records, replacing those with the same key. Raises RunError when that fails."""
        with self._connect() as connection:
            for record in records:
                content = asdict(record)
                marks = ", ".join("?" for _ in content)
                into = f"{_NAMES[type(record)]} ({', '.join(content)})"
                connection.execute(f"INSERT OR REPLACE INTO {into} VALUES ({marks})", tuple(content.values()))

    def table(self, name: str) -> pd.DataFrame:
        """Return one table in key order: empty, with its columns, before anything was written. Raises RunError."""
        import pandas as pd

        record, key = TABLES[name]
        columns = [field.name for field in fields(record)]
        rows = self.rows(f"SELECT {', '.join(columns)} FROM {name} ORDER BY {', '.join(key)}")
        try:
            _rows_of(record).validate_python(rows)
        except ValidationError as error:
            column = columns[int(error.errors()[0]["loc"][1])]
            raise RunError(
                f"{self._path.name} holds what cannot be in column '{column}' of {name}; the run's folder is damaged"
            ) from None
        return pd.DataFrame(rows, columns=columns)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query that only reads; none before anything was written."""
        if not self._path.exists():
            return []
        # rw, for a process killed inside a transaction leaves a journal that must be rolled back before reading;
        # a recorded run lies in a folder that may be read-only, where SQLite cannot lock
        mode = "mode=rw" if self._writable() else "immutable=1"
        try:
            place = f"{self._path.resolve().as_uri()}?{mode}"
            with closing(sqlite3.connect(place, uri=True, timeout=10)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    return []  # made, and nothing written yet
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if str(error).startswith("no such table"):  # written before there was such a table
                return []
            raise RunError(
                f"{self._path.name} cannot be read ({error}); the run's folder is damaged"
            ) from error

    def version(self) -> tuple[int, int]:
        """Changes whenever a record does; (0, 0) before anything was written.

        SQLite counts the transactions of a file in its header. The time alone would not do: two of them may fall
        into one tick of the file system's clock. The count alone would not either, for another file in its place.
        """
        try:
            with open(self._path, "rb") as file:
                count = int.from_bytes(file.read(_HEADER)[_COUNTER], "big")
                return count, os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return 0, 0
        except OSError as error:
            raise RunError(f"{self._path.name} cannot be read ({error.strerror})") from error

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy, even while another process adds records. Raises RunError."""
        try:
            with (
                closing(sqlite3.connect(self._path, timeout=30)) as source,
                closing(sqlite3.connect(path)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise RunError(f"{self._path.name} could not be copied ({error})") from error

    def delete_after(self, step: int) -> None:
        """Forget every record later than `step` (a branch starts there)."""
        with self._connect() as connection:
            for name in TABLES:
                connection.execute(f"DELETE FROM {name} WHERE step > ?", (step,))

    def forget_blocks(self, method: str, step: int, first: int) -> None:
        """Blocks of one step from `first` on count as finished no more, nor does its training; their records are
        replaced in time."""
        with self._connect() as connection:
            where = "method = ? AND step = ?"
            connection.execute(f"DELETE FROM blocks WHERE {where} AND block >= ?", (method, step, first))
            connection.execute(f"DELETE FROM training WHERE {where}", (method, step))

    def keep_domains(self, names: Sequence[str]) -> None:
        """Forget perplexities on domains that are not in `names`."""
        with self._connect() as connection:
            marks = ", ".join("?" for _ in names)
            connection.execute(f"DELETE FROM perplexity WHERE domain NOT IN ({marks})", tuple(names))

    def _writable(self) -> bool:
        return os.access(self._path.parent, os.W_OK)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=30)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                with connection:
                    connection.execute("BEGIN IMMEDIATE")  # the tables and their first rows appear together
                    for name, (record, key) in TABLES.items():
                        connection.execute(_create(name, record, key))
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise RunError(f"{self._path.name} could not be written ({error})") from error


@cache
def _rows_of(record: type) -> TypeAdapter[Any]:
    """Return the validator of a table's rows: a folder may be damaged in ways that SQLite still reads."""
    cells = tuple(_CELLS[annotation][1] for annotation in get_type_hints(record).values())
    rows: Any = GenericAlias(list, (GenericAlias(tuple, cells),))
    return TypeAdapter(rows, config=ConfigDict(strict=True))


@cache
def _create(name: str, record: type, key: tuple[str, ...]) -> str:
    hints = get_type_hints(record).items()
    columns = ", ".join(f"{column} {_CELLS[annotation][0]}" for column, annotation in hints)
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns}, PRIMARY KEY ({', '.join(key)}))"
