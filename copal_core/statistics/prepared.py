"""Statistics that were gathered of a checkpoint on its domains, found without importing torch.

An entry <cache>/statistics/entry-<key>.json is written once the statistics of every layer are complete; the errors of
all layers are stored beside it once they are compared. The key identifies weights, texts, windows and dtype.
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
    """Complete statistics of a checkpoint. `folders` maps domain name to folder, in the order of the domains."""

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
        """Open the layers' weights and statistics; imports torch."""
        from copal_core.statistics.library import LayerLibrary

        return LayerLibrary(self.checkpoint, (), self.protocol, self.folders, self.dtype, self.blocks)

    def errors(self) -> files.Arrays | None:
        """Read every layer's errors over the budgets; None before the layers were compared."""
        path = errors_file(self.key)
        return files.read_arrays(path)[0] if path.is_file() else None


def find(checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol) -> Entry | None:
    """Return the entry if all its statistics are present, else None. Reads small files only; no torch."""
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
        cache_room.touch(folder)
    return Entry(key, checkpoint, protocol, folders, content["dtype"], content["blocks"], content["stamp"])


def gather(checkpoint: Checkpoint, specs: Sequence[str], protocol: Protocol, report: Report) -> Entry:
    """Gather missing statistics and write the entry; takes minutes for a large checkpoint. Imports torch."""
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
    """Identify a domain; a file also by size and modification time, for its text may change under the same name."""
    path = Path(spec.partition("#")[0]).expanduser()
    try:
        status = path.stat() if path.is_file() else None
    except (OSError, ValueError):
        status = None
    return [spec, status.st_size, status.st_mtime_ns] if status else [spec]


def _entry_file(key: str) -> Path:
    return cache_room.statistics_root() / f"entry-{key}.json"


def errors_file(key: str) -> Path:
    """Return the file of every layer's errors, which `analysis.layers.preferences` writes."""
    return cache_room.statistics_root() / f"errors-{key}.safetensors"
