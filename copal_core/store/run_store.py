"""The run store: the only code that reads or writes a run's folder.

    run.json         configuration, versions, content hashes
    status.json      where the run stands
    events.jsonl     append-only progress
    results.sqlite   metrics and per-layer records
    windows/         the token windows of each domain
    masks/ factors/ bases/ neurons/ memory/ weights/ maps/   METHOD/step-NN/block-NNN.safetensors

A block counts as finished when its records are in `results.sqlite`; its files are written before that.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from copal_core.config import Method, RunConfig
from copal_core.errors import InvalidValueError, RunError
from copal_core.store.folder import JobFolder
from copal_core.store.folder import RunState as RunState
from copal_core.store.records import Record, Records
from copal_core.system import files
from copal_core.system.clock import now

if TYPE_CHECKING:
    import pandas as pd

Names = list[str] | None  # of the arrays to read; None for all


# the part of run.json that readers rely on; a folder may be damaged in ways that still parse
_Size = Annotated[int, Field(strict=True, ge=1, le=100_000)]
_Side = Annotated[int, Field(strict=True, ge=1)]


class _Checkpoint(BaseModel):
    name: str | None = None
    dtype: str | None = None
    blocks: _Size = 1
    heads: _Size = 1
    kv_heads: _Size = 1
    projections: dict[str, tuple[_Side, _Side]] = {}


class _Domain(BaseModel):
    name: str
    notes: list[Any] = []
    content_hash: str = ""


class _Info(BaseModel):
    checkpoint: _Checkpoint = _Checkpoint()
    domains: list[_Domain] = []
    title: str | None = None
    note: str | None = None
    created: str | None = None
    group: str | None = None


class RunStore(JobFolder):
    """One run's folder."""

    def __init__(self, folder: Path, recorded: bool = False) -> None:
        if not (folder / "run.json").is_file():
            raise RunError(
                f"run '{folder.name}' has no run.json in {folder.parent}; it may have been deleted"
            )
        super().__init__(folder, f"run '{folder.name}'")
        self.id = folder.name
        self.recorded = recorded
        self.records = Records(folder / "results.sqlite")

    # -- configuration and description ---------------------------------------------------------------

    @cached_property
    def config(self) -> RunConfig:
        try:
            return RunConfig.from_json(json.dumps(self._run["config"]))
        except (KeyError, TypeError):
            raise RunError(
                f"run.json of run '{self.id}' holds no configuration; the folder is damaged"
            ) from None

    @property
    def info(self) -> dict[str, Any]:
        return {**self._run.get("info", {}), "recorded": self.recorded}

    def describe(self, **info: Any) -> None:
        """Add to what run.json says about the run (checkpoint, domains, versions)."""
        content = self._run
        content["info"] = {**content.get("info", {}), **info}
        files.write_json(self.folder / "run.json", content)

    @property
    def _run(self) -> dict[str, Any]:
        content = files.read_json(self.folder / "run.json")
        if not isinstance(content, dict):
            raise RunError(f"run.json of run '{self.id}' is not a JSON object; the folder is damaged")
        try:
            _Info.model_validate(content.get("info", {}))
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "info"
            raise RunError(
                f"run.json of run '{self.id}' holds in '{field}' what cannot be; the folder is damaged"
            ) from None
        return content

    @property
    def domains(self) -> list[str]:
        """Short domain names, in the order of the steps."""
        described = [domain["name"] for domain in self.info.get("domains", [])]
        return described + list(self.config.domains[len(described) :])  # those not sampled yet: as specified

    def choose_method(self, method: str | None) -> str:
        """Return `method` as the records write it, or the only one. Raises InvalidValueError that lists them."""
        names = [str(known) for known in self.config.methods]
        if method is None and len(names) > 1:
            raise InvalidValueError(f"run '{self.id}' has several methods; choose one of {', '.join(names)}")
        chosen = names[0] if method is None else str(Method.parse(method))
        if chosen not in names:
            raise InvalidValueError(f"method '{method}' is not in run '{self.id}'; it has {', '.join(names)}")
        return chosen

    def choose_step(self, step: int | None) -> int:
        """Return `step`, or the last. Raises InvalidValueError for one that is not in the run."""
        first, last = self.config.first_step, len(self.config.domains)
        if step is not None and not first <= step <= last:
            raise InvalidValueError(f"step {step} is not in run '{self.id}'; choose {first} to {last}")
        return last if step is None else step

    def protocol_stamp(self) -> str:
        """Return the line that must stand beside every perplexity of this run."""
        protocol, info = self.config.protocol, self.info
        checkpoint = info.get("checkpoint", {})
        parts = [
            checkpoint.get("name", self.config.checkpoint),
            f"calibration {protocol.calibration}".replace("x", "×"),
            f"evaluation {protocol.evaluation}".replace("x", "×"),
            f"{protocol.propagate} propagation",
            f"seed {protocol.seed}",
            checkpoint.get("dtype", protocol.dtype),
            str(info.get("created", ""))[:10],
        ]
        return " · ".join(part for part in parts if part)

    # -- state ---------------------------------------------------------------------------------------

    def refuse_recorded(self) -> None:
        """Raise RunError for a recorded run, which nobody computes or changes."""
        if self.recorded:
            raise RunError(
                f"run '{self.id}' is a recorded run that ships with the product; start one of your own"
            )

    def lock(self) -> AbstractContextManager[None]:
        self.refuse_recorded()
        return super().lock()

    def is_locked(self) -> bool:
        return not self.recorded and super().is_locked()

    # -- events --------------------------------------------------------------------------------------

    def append_event(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"time": now(), **event}, ensure_ascii=False) + "\n"
        try:
            with open(self.folder / "events.jsonl", "ab+") as file:
                if file.tell() and _last_byte(file) != b"\n":  # the process was killed inside a line
                    line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            raise files.readable(self.folder / "events.jsonl", error) from error

    def events(self, offset: int = 0) -> list[dict[str, Any]]:
        """Events from number `offset` on; a line cut short by a kill is passed over."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return []
        found = []
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise RunError(f"events.jsonl of run '{self.id}' cannot be read ({error.strerror})") from error
        for line in lines:
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
        return found[offset:]

    def drop_memory(self) -> None:
        """Delete what only a branch would need: by far the largest part of a run, and a group has many runs."""
        self.describe(memory_dropped=True)
        shutil.rmtree(self.folder / "memory", ignore_errors=True)

    # -- records -------------------------------------------------------------------------------------

    def add(self, records: Sequence[Record]) -> None:
        self.records.add(records)

    def perplexity(self) -> pd.DataFrame:
        return self.records.table("perplexity")

    def layers(self) -> pd.DataFrame:
        return self.records.table("layers")

    def factors(self) -> pd.DataFrame:
        return self.records.table("factors")

    def overlaps(self) -> pd.DataFrame:
        return self.records.table("overlaps")

    def warnings(self) -> pd.DataFrame:
        return self.records.table("warnings")

    def seconds(self) -> pd.DataFrame:
        """Seconds by method, step and phase, summed over blocks."""
        table = self.records.table("seconds")
        return table.groupby(["method", "step", "phase"], as_index=False)["seconds"].sum()

    def finished_blocks(self, method: str, step: int) -> int:
        """Count the blocks of this step, from the first, that are complete."""
        query = "SELECT COUNT(*) FROM blocks WHERE method = ? AND step = ?"
        rows = self.records.rows(query, (method, step)) if self.records_exist() else []
        return int(rows[0][0]) if rows else 0

    def is_trained(self, method: str, step: int) -> bool:
        """True once the training of this step is finished."""
        query = "SELECT 1 FROM training WHERE method = ? AND step = ?"
        return bool(self.records.rows(query, (method, step)))

    def records_exist(self) -> bool:
        return (self.folder / "results.sqlite").exists()

    def evaluated(self, method: str, step: int) -> list[str]:
        """Domains whose perplexity after this step is known."""
        query = "SELECT domain FROM perplexity WHERE method = ? AND step = ?"
        return [row[0] for row in self.records.rows(query, (method, step))] if self.records_exist() else []

    # -- arrays --------------------------------------------------------------------------------------

    def block_path(self, kind: str, method: str, step: int, block: int) -> Path:
        """kind: masks, factors, bases, neurons, memory, weights or maps."""
        return (
            self.folder
            / kind
            / Method.parse(method).slug
            / f"step-{step:02d}"
            / f"block-{block:03d}.safetensors"
        )

    def save_masks(self, method: str, step: int, block: int, kept: Mapping[str, NDArray[np.bool_]]) -> None:
        """Keep masks (out, in), True = kept, packed to bits along the input dimension."""
        # one entry: the file format keeps several in no fixed order, and equal runs must be equal bytes
        shapes = {"shapes": json.dumps({name: list(mask.shape) for name, mask in sorted(kept.items())})}
        packed = {name: np.packbits(mask, axis=1) for name, mask in kept.items()}
        files.write_arrays(self.block_path("masks", method, step, block), packed, shapes)

    def masks(self, method: str, step: int, block: int, names: Names = None) -> dict[str, NDArray[np.bool_]]:
        """projection (all by default) -> (out, in) True = kept. Raises RunError when the run kept none."""
        packed, metadata = files.read_arrays(self.block_path("masks", method, step, block), names)
        try:
            shapes = json.loads(metadata["shapes"])
            return {
                name: np.unpackbits(bits, axis=1, count=shapes[name][1]).astype(bool)
                for name, bits in packed.items()
            }
        except (KeyError, IndexError, TypeError, ValueError):
            raise RunError(f"masks of block {block} of run '{self.id}' are damaged") from None

    def save_arrays(self, kind: str, method: str, step: int, block: int, arrays: files.Arrays) -> None:
        files.write_arrays(self.block_path(kind, method, step, block), arrays)

    def arrays(self, kind: str, method: str, step: int, block: int, names: Names = None) -> files.Arrays:
        return files.read_arrays(self.block_path(kind, method, step, block), names)[0]

    def has_arrays(self, kind: str, method: str, step: int, block: int) -> bool:
        return self.block_path(kind, method, step, block).is_file()

    def drop_arrays(self, kind: str, method: str, step: int) -> None:
        """Delete the files of one kind of one step, if there are any."""
        shutil.rmtree(self.block_path(kind, method, step, 0).parent, ignore_errors=True)

    def tiles(self, method: str, step: int, block: int, projection: str) -> dict[str, NDArray[Any]]:
        """Pooled maps of one layer: score, kept, histogram, edges, row_kept and, per head, two more."""
        path = self.block_path("maps", method, step, block)
        arrays, _ = files.read_arrays(path, [f"{projection}.{name}" for name in MAP_NAMES])
        tiles = {name.partition(".")[2]: array for name, array in arrays.items()}
        if not _sound_tiles(tiles):
            raise RunError(f"maps/{path.parent.name}/{path.name} of run '{self.id}' is damaged")
        if "log_score" in tiles:
            tiles["score"] = 10.0 ** tiles.pop("log_score").astype(np.float32)
        if "range" in tiles:
            bins = tiles["histogram"].shape[1]
            low, high = tiles.pop("range")
            tiles["edges"] = np.linspace(low, high, bins + 1, dtype=np.float32)
        for name in ("kept", "row_kept"):
            if name in tiles:
                tiles[name] = tiles[name].astype(np.float32) / 200
        return tiles

    def save_windows(self, index: int, calibration: NDArray[np.int64], evaluation: NDArray[np.int64]) -> None:
        path = self.folder / "windows" / f"domain-{index:02d}.safetensors"
        files.write_arrays(path, {"calibration": calibration, "evaluation": evaluation})

    def windows(self, index: int) -> files.Arrays | None:
        path = self.folder / "windows" / f"domain-{index:02d}.safetensors"
        return files.read_arrays(path)[0] if path.exists() else None


# pooled maps as they are written, with their dimensions; `RunStore.tiles` turns them back into plain numbers
_DIMENSIONS = {
    "log_score": 2, "kept": 2, "histogram": 2, "range": 1, "row_kept": 1, "head_kept": 1, "head_score": 1
}  # fmt: skip
_NEEDED = {"log_score", "kept", "histogram"}
MAP_NAMES = tuple(_DIMENSIONS)


def _sound_tiles(tiles: Mapping[str, NDArray[Any]]) -> bool:
    """Tell whether one layer's pooled maps have the shapes and kinds of numbers that they are written with."""
    for name, array in tiles.items():
        if array.ndim != _DIMENSIONS[name] or array.dtype.kind not in "fiu" or not array.size:
            return False
    if not tiles.keys() >= _NEEDED or len(tiles["histogram"]) != 2:
        return False
    ends = tiles.get("range")
    return ends is None or (len(ends) == 2 and bool(ends[0] < ends[1] < math.inf))


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))
