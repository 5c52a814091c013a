"""Atomic files: write to a temporary file beside the target, flush it to disk, rename it into place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from copal_core.errors import RunError

Arrays = dict[str, NDArray[Any]]


def write_atomically(path: Path, write: Callable[[Path], None], durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    Args:
        path: the file to create or replace; missing folders are created.
        write: receives the path of the temporary file and fills it.
        durable: flush to disk before the rename, so that a power cut leaves either the old file or the new one.

    Raises:
        RunError: the disk is full, or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            if durable:
                _flush(temporary)
            temporary.replace(path)
            if durable:
                _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise readable(path, error) from error
    except SafetensorError as error:  # safetensors reports a full disk with its own exception
        raise RunError(
            f"{path.name} could not be written: {error}; free some disk space, then resume"
        ) from error


def remove_partial(folder: Path) -> None:
    """Delete temporary files left by killed processes; only the process that writes into `folder` may call it."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Write bytes atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write, durable)


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode(), durable)


def write_json(path: Path, content: Any, durable: bool = True) -> None:
    """Write JSON with sorted keys atomically."""
    write_text(path, json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n", durable)


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Write named arrays as one safetensors file, in sorted order, atomically."""
    content = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    write_atomically(path, lambda temporary: save_file(content, temporary, metadata))


def read_arrays(path: Path, names: list[str] | None = None) -> tuple[Arrays, dict[str, str]]:
    """Read arrays and metadata of a safetensors file.

    Args:
        path: the file.
        names: arrays to read, where they exist; None reads all of them.

    Returns:
        The arrays by name, and the file's metadata.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            present = set(file.keys())
            wanted = sorted(present) if names is None else [name for name in names if name in present]
            return {name: file.get_tensor(name) for name in wanted}, dict(file.metadata() or {})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path.parent.name}/{path.name} cannot be read ({error}); the run's folder is damaged"
        ) from error


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises RunError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path.name} cannot be read ({error}); the run's folder is damaged") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; systems that cannot open folders guarantee that by themselves."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def touch(path: Path) -> None:
    """Create an empty file as a signal to another process. Raises RunError when it cannot be created."""
    try:
        path.touch()
    except OSError as error:
        raise readable(path, error) from error


@contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file; raise RunError with the message `refusal` when another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=3)
    except Timeout:
        raise RunError(refusal) from None
    except OSError as error:
        raise readable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether a running process holds a lock file; False if the file does not exist."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError as error:
        raise readable(path, error) from error
    lock.release()
    return False


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Delete all files that match `pattern` except the `count` newest; other processes may do so concurrently."""
    by_age = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            by_age.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(by_age)[:-count]:
        path.unlink(missing_ok=True)


def new_folder(out: Path) -> Path:
    """Return the absolute path of a folder that is absent or empty. Raises RunError for anything else."""
    folder = Path(os.path.abspath(out))
    if not folder.name:
        raise RunError(f"'{out}' is no folder to write into; choose a new one")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise RunError(f"'{out}' is a file; choose a new folder")
    if os.path.isdir(folder) and any(folder.iterdir()):
        raise RunError(f"folder '{out}' is not empty; choose a new one")
    return folder


@contextmanager
def making(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` on success and is deleted on failure.

    Args:
        out: the folder to create; it must be absent or empty.

    Raises:
        RunError: `out` holds files, or cannot be written.
    """
    target = new_folder(out)
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"'{target}' could not be written ({error}); choose another folder or make room"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def readable(path: Path, error: OSError) -> RunError:
    """Turn a failed write into a RunError with a readable message."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk is full: {path.name} could not be written; free some space, then resume")
    return RunError(f"{path} could not be written ({error.strerror or error})")
