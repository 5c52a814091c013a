"""Statistics that were gathered of a checkpoint on its domains, found without importing torch.

An entry is written once the statistics of every layer are complete: <cache>/statistics/entry-<key>.json, and
beside it the errors of all layers when they were compared. The key names weights, texts, windows and dtype.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.checkpoints import Checkpoint, devices
from copal_core.config import Protocol
from copal_core.statistics import cache_room
from copal_core.system import files

if TYPE_CHECKING:
    from copal_core.statistics.library import LayerLibrary

Report = Callable[[str, int, int], None]
HELD = ("InputGram", "AbsoluteCoupling", "InputSquareSum")  # statistics that are there of every layer
_STATISTICS = ("input_gram", "absolute_coupling")  # files; the squares are the Gram matrix's diagonal


@dataclass(frozen=True)
class Entry:
    """Statistics that are ready. folders: domain name -> folder, in the order of the domains."""

    key: str
    checkpoint: Checkpoint
    protocol: Protocol
    folders: dict[str, Path]
    dtype: str
    blocks: int
    stamp: str

    @property
    def domains(self) -> list[str]:
        return list(self.folders)

    def library(self) -> LayerLibrary:
        """The layers' weights and statistics; imports torch."""
        from copal_core.statistics.library import LayerLibrary

        return LayerLibrary(self.checkpoint, (), self.protocol, self.folders, self.dtype, self.blocks)

    def errors(self) -> files.Arrays | None:
        """Every layer's errors over the budgets; None before they were compared."""
        path = errors_file(self.key)
        return files.read_arrays(path)[0] if path.is_file() else None


def find(checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol) -> Entry | None:
    """The entry when everything it names is there. Reads two small files; no torch."""
    key = _key(checkpoint, specs, protocol)
    path = _entry_file(key)
    if not path.is_file():
        return None
    content: dict[str, Any] = files.read_json(path)
    root = cache_room.statistics_root()
    folders = {name: root / folder for name, folder in content["folders"]}
    complete = all(
        (folder / name / "complete.json").is_file() for folder in folders.values() for name in _STATISTICS
    )
    if not complete:
        return None
    for folder in folders.values():
        cache_room.used(folder)
    return Entry(key, checkpoint, protocol, folders, content["dtype"], content["blocks"], content["stamp"])


def gather(checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol, report: Report) -> Entry:
    """Gather what is missing and write the entry; minutes on a large checkpoint. Imports torch."""
    from copal_core.statistics.library import layer_library

    library = layer_library(checkpoint, list(specs), protocol, report=report)
    key = _key(checkpoint, specs, protocol)
    content = {
        "folders": [[name, folder.name] for name, folder in library.folders.items()],
        "dtype": library.dtype,
        "blocks": library.blocks,
        "stamp": library.stamp(),
    }
    files.write_json(_entry_file(key), content, durable=False)
    return Entry(
        key, checkpoint, protocol, dict(library.folders), library.dtype, library.blocks, library.stamp()
    )


def _key(checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol) -> str:
    device, dtype, _ = devices.choose(protocol.device, protocol.dtype)
    windows = [str(protocol.calibration), str(protocol.evaluation), protocol.seed]
    identity = [checkpoint.fingerprint(), [_identity(spec) for spec in specs], windows, device, dtype]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:20]


def _identity(spec: str) -> list[Any]:
    """A file's text may change under the same name."""
    path = Path(spec.partition("#")[0]).expanduser()
    try:
        found = path.stat() if path.is_file() else None
    except (OSError, ValueError):
        found = None
    return [spec, found.st_size, found.st_mtime_ns] if found else [spec]


def _entry_file(key: str) -> Path:
    return cache_room.statistics_root() / f"entry-{key}.json"


def errors_file(key: str) -> Path:
    """Return the file of every layer's errors, which `analysis.layers.preferences` writes."""
    return cache_room.statistics_root() / f"errors-{key}.safetensors"
