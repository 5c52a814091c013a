"""A run as a separate process: start, watch, cancel, resume, branch.

The process is the very command the command line offers. It shares nothing with the one that starts it but
the run's folder, so closing the app neither stops nor loses a run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from copal_core.errors import InvalidValueError, RunError
from copal_core.runs import Runs
from copal_core.store import RunState, RunStore

_RESULTS = ("masks", "factors", "neurons", "memory", "weights", "maps")


def start(store: RunStore) -> None:
    """Compute the run, or go on with it, in a process of its own.

    Raises RunError when another process computes it, or when it is a recorded run.
    """
    _refuse_recorded(store)
    if store.is_locked():
        raise RunError(f"run '{store.id}' is being computed already; watch it or cancel it")
    store.clear_cancel()
    store.set_state(RunState(status="created", message="the process is starting"))
    command = [sys.executable, "-m", "copal_core", "resume", store.id, "--runs", str(store.folder.parent)]
    package = str(Path(__file__).resolve().parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    with open(store.folder / "process.log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # closing the app's terminal does not reach it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    _children.append(process)


_children: list[subprocess.Popen[bytes]] = []  # kept, so that ended ones are reaped


def cancel(store: RunStore) -> None:
    """Ask the run to stop; it does so within one block. Harmless when it does not run."""
    _refuse_recorded(store)
    store.request_cancel()


def is_running(store: RunStore) -> bool:
    """Whether a living process computes the run."""
    for process in list(_children):
        if process.poll() is not None:
            _children.remove(process)
    return store.is_locked()


def branch(store: RunStore, step: int, domain: str, title: str = "") -> RunStore:
    """A new run with the same past up to `step` and `domain` next. Nothing of the past is computed again.

    Raises InvalidValueError for a step that is not finished for every method, RunError when the run did not
    keep what a branch needs (a recorded run does not).
    """
    runs, config = Runs(store.folder.parent), store.config
    if store.recorded:
        raise RunError("a recorded run keeps no masks or memory; start a run of your own to branch it")
    if not 1 <= step <= len(config.domains):
        raise InvalidValueError(f"step {step} is not in the run; choose 1 to {len(config.domains)}")
    missing = [str(m) for m in config.methods if len(store.evaluated(str(m), step)) < len(config.domains)]
    if missing:
        raise InvalidValueError(
            f"step {step} is not finished for {', '.join(missing)}; resume the run, then branch"
        )
    new_config = type(config)(**{**config.model_dump(), "domains": (*config.domains[:step], domain)})
    new = runs.create(new_config, title or f"branch of {store.id} at step {step}")
    _copy_past(store, new, step)
    return new


def _copy_past(store: RunStore, new: RunStore, step: int) -> None:
    for kind in _RESULTS:
        for source in (store.folder / kind).glob("*/step-*"):
            if int(source.name.removeprefix("step-")) <= step:
                # finished files are never written again: a link shares the bytes
                shutil.copytree(
                    source, new.folder / kind / source.parent.name / source.name, copy_function=_link
                )
    (new.folder / "windows").mkdir(exist_ok=True)
    for index in range(step):
        name = f"domain-{index:02d}.safetensors"
        _link(store.folder / "windows" / name, new.folder / "windows" / name)
    store.records.copy_to(new.folder / "results.sqlite")
    new.records.delete_after(step)
    new.records.keep_domains(store.domains[:step])
    info = store.info
    past = {"checkpoint": info["checkpoint"], "domains": info["domains"][:step]}
    new.describe(**past, branched_from=store.id, branched_at=step)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _refuse_recorded(store: RunStore) -> None:
    if store.recorded:
        raise RunError(
            f"run '{store.id}' is a recorded run that ships with the product; start one of your own"
        )
