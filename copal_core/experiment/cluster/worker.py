"""The task of a Ray worker: compute one run, in the driver's folder or in one of its own."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from copal_core.config import RunConfig
from copal_core.errors import Cancelled, CopalError
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs


def run_elsewhere(
    root: str,
    token_file: str,
    token: str,
    run: str,
    config: str,
    info: dict[str, Any],
    threads: int,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Compute one run; {"problem": words or '', "folder": the packed run, or None when it is in its place}."""
    import torch

    os.environ.update(environment)
    torch.set_num_threads(threads)
    path = Path(token_file)
    if path.is_file() and path.read_text() == token:  # the very folder of the driver
        return {"problem": _compute(Runs(Path(root)).open(run)), "folder": None}
    with tempfile.TemporaryDirectory(prefix="copal-") as scratch:
        store = Runs(Path(scratch)).create(RunConfig.from_json(config), run_id=run)
        store.describe(**{name: value for name, value in info.items() if name != "recorded"})
        return {"problem": _compute(store), "folder": packed(store.folder)}


def _compute(store: RunStore) -> str:
    from copal_core.experiment import loop

    deadline = time.monotonic() + 60
    while store.is_locked() and time.monotonic() < deadline:
        time.sleep(1)  # the worker that had this run is being taken down
    try:
        loop.run(store, should_stop=store.cancel_requested)
    except Cancelled:
        return "it was cancelled"
    except CopalError as error:
        return str(error)
    if store.info.get("group"):
        store.drop_memory()
    return ""


def packed(folder: Path) -> bytes:
    """A run's folder as one archive, without locks and temporary files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.endswith((".lock", ".tmp")) and path.name != "cancel":
                archive.add(path, str(path.relative_to(folder)))
    return buffer.getvalue()


def unpack(archive_bytes: bytes, folder: Path) -> None:
    """Put a run where it belongs: whole beside it first, then in place of what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=folder.parent) as scratch:
        arrived = Path(scratch) / folder.name
        with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as archive:
            archive.extractall(arrived, filter="data")
        if folder.exists():
            folder.rename(Path(scratch) / "before")
        arrived.rename(folder)
