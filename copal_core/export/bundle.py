"""A reproduction bundle: what a run was, in one small zip, and the same run computed again from it.

The windows of tokens travel with it, so that a person's own text need not: a run repeated from a bundle sees
the very same tokens. The checkpoint does not; its fingerprint is compared.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from copal_core.analysis.results import result_of
from copal_core.config import RunConfig
from copal_core.errors import RunError
from copal_core.export.command_line import command_of
from copal_core.export.tables import write_zip
from copal_core.methods.describe import removed
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

_LARGEST = 512 * 2**20  # bytes of one entry, unpacked
_CONFIG, _RUN, _RESULT = "config.json", "run.json", "result.json"


def write_bundle(store: RunStore, out: Path) -> Path:
    """Write the bundle of a run. Raises RunError when `out` cannot be written."""
    info = store.info
    described = {
        key: info[key]
        for key in ("checkpoint", "domains", "versions", "machine", "fingerprint")
        if key in info
    }
    contents = {
        "README.md": _words(store).encode(),
        "command.txt": (command_of(store.config) + "\n").encode(),
        _CONFIG: (store.config.canonical() + "\n").encode(),
        _RUN: json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False).encode(),
        _RESULT: json.dumps(result_of(store), indent=1, sort_keys=True, ensure_ascii=False).encode(),
    }
    for index in range(len(info.get("domains", []))):
        path = store.folder / "windows" / f"domain-{index:02d}.safetensors"
        if path.is_file():
            contents[f"windows/{path.name}"] = path.read_bytes()
    return write_zip(out, contents)


@dataclass(frozen=True)
class Bundle:
    """Contents of a bundle. windows: by the number of the domain, from 0."""

    config: RunConfig
    described: dict[str, Any]
    result: dict[str, Any]
    windows: dict[int, dict[str, np.ndarray]]


def read_bundle(path: Path) -> Bundle:
    """Read and check a bundle. Raises RunError when it is no bundle, or damaged; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = RunConfig.from_json(_entry(archive, _CONFIG).decode())
            described, result = (json.loads(_entry(archive, name)) for name in (_RUN, _RESULT))
            names = set(archive.namelist())
            windows = {
                index: load_arrays(_entry(archive, name))
                for index in range(len(config.domains))
                if (name := f"windows/domain-{index:02d}.safetensors") in names
            }
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, SafetensorError, NotImplementedError) as error:
        raise RunError(f"'{path}' is not a reproduction bundle, or is damaged ({error})") from error
    if not isinstance(described, dict) or not isinstance(result, dict):
        raise RunError(f"'{path}' is not a reproduction bundle: its descriptions are not JSON objects")
    for domain in described.get("domains", []):
        if not isinstance(domain, dict) or not isinstance(domain.get("name"), str):
            raise RunError(f"'{path}' is not a reproduction bundle: a domain in its run.json has no name")
    bundle = Bundle(config, described, result, windows)
    for index, arrays in windows.items():
        _check_windows(bundle, index, arrays)
    return bundle


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    found = archive.getinfo(name)
    if found.file_size > _LARGEST:
        raise ValueError(f"{name} is {found.file_size} bytes; at most {_LARGEST} are read")
    return archive.read(found)


def _check_windows(bundle: Bundle, index: int, arrays: dict[str, np.ndarray]) -> None:
    """The windows have the protocol's shape, and the text that run.json names."""
    protocol, digest = bundle.config.protocol, hashlib.sha256()
    for side in ("calibration", "evaluation"):
        asked, found = getattr(protocol, side), arrays.get(side)
        if (
            found is None
            or found.shape != (asked.count, asked.length)
            or found.dtype != np.int64
            or found.min() < 0
        ):
            raise RunError(f"the bundle's {side} windows of domain {index + 1} are not {asked} token ids")
        digest.update(repr(found.shape).encode())
        digest.update(np.ascontiguousarray(found, dtype="<i8").tobytes())
    domains = bundle.described.get("domains", [])
    wanted = domains[index].get("content_hash") if index < len(domains) else None
    if digest.hexdigest() != wanted:
        raise RunError(f"the bundle's windows of domain {index + 1} are not the text that its run.json names")


def create_from(bundle: Bundle, runs: Runs, title: str = "", checkpoint: str | None = None) -> RunStore:
    """A new run with the bundle's configuration and windows, ready to be computed.

    checkpoint: where the same weights are found here, if not under the bundle's own name.
    """
    config = bundle.config
    if checkpoint is not None:
        config = RunConfig(**{**dict(config), "checkpoint": checkpoint})
    store = runs.create(config, title or "reproduced from a bundle")
    described = bundle.described.get("domains", [])
    known: list[dict[str, Any]] = []
    for index in range(len(bundle.config.domains)):
        if index not in bundle.windows or len(known) < index:
            break  # a recorded run brings no windows; its domains are sampled again
        store.save_windows(index, bundle.windows[index]["calibration"], bundle.windows[index]["evaluation"])
        known.append(described[index])
    was = bundle.described.get("checkpoint", {}).get("fingerprint")
    fingerprint = {"fingerprint": was} if was else {}
    store.describe(domains=known, checkpoint=fingerprint)  # other weights are refused when it starts
    return store


def compare(bundle: Bundle, store: RunStore) -> dict[str, Any]:
    """How far the repeated run is from the bundle's: identical, largest relative difference, and where it is."""
    mine, theirs = _perplexities(result_of(store)), _perplexities(bundle.result)
    largest, where = 0.0, ""
    for key, value in theirs.items():
        found = mine.get(key)
        if value is None or found is None:
            difference = 0.0 if value == found else math.inf
        else:
            difference = abs(found - value) / value
        if difference > largest:
            largest, where = difference, key
    versions = bundle.described.get("versions", {})
    changed = {
        name: [value, store.info.get("versions", {}).get(name)]
        for name, value in versions.items()
        if store.info.get("versions", {}).get(name) != value
    }
    return {
        "run": store.id,
        "identical": mine == theirs,
        "compared": len(theirs),
        "largest_relative_difference": largest,
        "where": where,
        "other_versions": changed,
    }


def _perplexities(result: dict[str, Any]) -> dict[str, float | None]:
    found = {f"dense, {name}": value for name, value in result.get("dense", {}).items()}
    for entry in result.get("methods", []):
        for step, row in enumerate(entry["perplexity"], start=1):
            found |= {
                f"{entry['method']}, step {step}, domain {n}": value for n, value in enumerate(row, start=1)
            }
    return found


def _words(store: RunStore) -> str:
    info = store.info
    buffer = io.StringIO()
    buffer.write(f"# {info.get('title') or f'Run {store.id}'}\n\n")
    buffer.write(f"Protocol: {store.protocol_stamp()}, removed {removed(store.config)}.\n\n")
    buffer.write("Computed again, with the same tokens, and compared:\n\n")
    buffer.write("    python -m copal_core reproduce BUNDLE.zip\n\n")
    buffer.write("Or from the texts, where they are still the same:\n\n")
    buffer.write("".join(f"    {line}\n" for line in command_of(store.config).splitlines()))
    buffer.write("\n| file | what it is |\n|---|---|\n")
    for name, words in (
        ("config.json", "everything that decides the numbers"),
        ("run.json", "versions, machine, and SHA-256 of the weights and of every domain's windows"),
        ("result.json", "the perplexities and other measures that were found"),
        ("windows/", "the tokens that were used (a recorded run keeps none)"),
        ("command.txt", "the command line"),
    ):
        buffer.write(f"| `{name}` | {words} |\n")
    buffer.write(
        "\nThe same versions on the same kind of processor give the same numbers to the last bit; others differ by "
        "rounding.\n"
    )
    return buffer.getvalue()
