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
from copal_core.store.folder import JobFolder, RunState
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files, queueing, sharing
from copal_core.system.paths import runs_root

_RESULTS = ("masks", "factors", "bases", "neurons", "memory", "weights", "maps")


def start(store: RunStore) -> None:
    """Compute the run, or go on with it, in a process of its own.

    Raises RunError when another process computes it, or when it is a recorded run.
    """
    store.refuse_recorded()
    launch(store, ["resume", store.id, "--runs", str(store.folder.parent)])


def launch(job: JobFolder, command: list[str]) -> None:
    """Let one command of the command line compute `job`, in a process of its own.

    Raises RunError when another process does already, or the job is another person's.
    """
    sharing.require_owner(job.folder)
    if job.is_locked():
        raise RunError(f"{job.called} is being computed already; watch it or cancel it")
    job.clear_cancel()
    job.set_state(RunState(job.starting, "the process is starting"))
    spawn(command, job.folder / "process.log")


def spawn(arguments: list[str], log: Path) -> None:
    """Run one command of the command line as a process of its own, its output appended to `log`.

    log: in the folder of what is computed. On a shared server the process waits for its turn. Raises RunError.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    turn = queueing.enqueue(runs_root(), log.parent)
    try:
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "copal_core", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # closing the app's terminal does not reach it
                env={**os.environ, **turn, "PYTHONPATH": os.pathsep.join(paths)},
            )
    except OSError as error:
        queueing.give_back(turn)
        raise files.readable(log, error) from error
    _children[:] = [child for child in _children if child.poll() is None] + [process]


_children: list[subprocess.Popen[bytes]] = []  # asked whether they ended, so that none stays a zombie


def cancel(store: RunStore) -> None:
    """Ask the run to stop; it does so within one block. Harmless when it does not run."""
    store.refuse_recorded()
    store.request_cancel()


def branch(store: RunStore, step: int, domain: str, title: str = "") -> RunStore:
    """A new run with the same past up to `step` and `domain` next. Nothing of the past is computed again.

    Raises InvalidValueError for a step that is not finished for every method, RunError when the run did not
    keep what a branch needs (a recorded run does not).
    """
    if store.info.get("memory_dropped"):
        raise RunError(
            f"run '{store.id}' belongs to a group and kept no memory; start it once on its own, then branch it"
        )
    new = _past(store, step, (domain,), title or f"branch of {store.id} at step {step}")
    new.describe(branched_from=store.id, branched_at=step)
    return new


def undo(store: RunStore, title: str = "") -> RunStore:
    """A new run that ends before the last domain of `store`, which stays as it is. Nothing is computed.

    Raises InvalidValueError for a run of one domain, or one that is not finished up to there.
    """
    step = len(store.config.domains) - 1
    if step < 1:
        raise InvalidValueError(
            f"run '{store.id}' has one domain; undoing it would leave none; delete the run"
        )
    name = store.info.get("title") or store.id
    new = _past(store, step, (), title or f"{name} without {store.domains[-1]}")
    kept = {key: store.info[key] for key in ("versions", "machine", "memory_dropped") if key in store.info}
    new.describe(**kept, undone_from=store.id)
    new.set_state(RunState(status="done", progress=1.0))
    new.append_event({"event": "done", "message": f"undone from {store.id}", "progress": 1.0})
    return new


def _past(store: RunStore, step: int, then: tuple[str, ...], title: str) -> RunStore:
    """A new run with the same first `step` domains, then `then`, and all that was computed of the past."""
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
    new_config = type(config)(**{**config.model_dump(), "domains": (*config.domains[:step], *then)})
    new = runs.create(new_config, title)
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
    new.describe(checkpoint=info["checkpoint"], domains=info["domains"][:step])


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
