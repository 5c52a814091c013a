"""A folder that one process at a time computes: where it stands, who holds it, and the request to stop.

status.json   where it stands
worker.lock   held by the process that computes it, as long as that lives
cancel        asks that process to stop
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from copal_core.errors import Cancelled, CopalError, InvalidValueError, RunError
from copal_core.store import soundness
from copal_core.system import files, sharing
from copal_core.system.clock import now

ID = re.compile(r"^[a-z0-9][a-z0-9-]{5,63}\Z")
ACTIVE = ("created", "starting", "running")  # a process computes it, or is about to
_EXHAUSTED = "the machine's memory is exhausted; resume when more is free, or use a smaller protocol"


@dataclass(frozen=True)
class RunState:
    """Where a job stands. status: created (a group: starting), running, done, failed, cancelled or interrupted.

    Before it is started: created (a group: waiting; an attribution: none).
    """

    status: str = "created"
    message: str = ""
    progress: float = 0.0
    phase: str = ""
    method: str = ""
    step: int = 0
    block: int = 0
    seconds_left: float | None = None
    updated: str = ""


class JobFolder:
    """What runs, groups and attributions have in common.

    called: what it is in messages, such as "run 'x'".
    """

    unstarted: ClassVar[str] = "created"
    starting: ClassVar[str] = "created"
    again: ClassVar[str] = "resume it"  # what to do with one that ended early

    def __init__(self, folder: Path, called: str) -> None:
        self.folder = folder
        self.called = called

    def state(self) -> RunState:
        """The last state written; 'interrupted' when it claims a process and none holds the folder."""
        state = self.written_state()
        if self._claims_a_process(state) and not self.is_locked():
            state = self.written_state()  # it may have ended, and said so, between the two looks
            if self._claims_a_process(state):
                message = f"the process ended before it was done; {self.again}"
                return replace(state, status="interrupted", message=message)
        return state

    def written_state(self) -> RunState:
        """The last state written, whether its process lives or not. Raises RunError when it is damaged."""
        path = self.folder / "status.json"
        if not path.exists():
            return RunState(self.unstarted)
        content = files.read_json(path)
        if not soundness.sound_state(RunState, content):
            raise RunError(f"status.json of {self.called} is damaged; {self.again}")
        return RunState(**content)

    def set_state(self, state: RunState) -> None:
        stamped = replace(state, updated=now())
        files.write_json(self.folder / "status.json", asdict(stamped), durable=state.status not in ACTIVE)

    def _claims_a_process(self, state: RunState) -> bool:
        """Whether it says that a process computes it, or has had a minute to begin to."""
        if state.status == self.starting:
            return not soundness.just_now(state.updated)
        return state.status == "running"

    def request_cancel(self) -> None:
        """Ask the process to stop; it does so within one block. Raises RunError for another person's work."""
        sharing.require_owner(self.folder)
        files.touch(self.folder / "cancel")

    def cancel_requested(self) -> bool:
        return (self.folder / "cancel").exists()

    def clear_cancel(self) -> None:
        (self.folder / "cancel").unlink(missing_ok=True)

    def forget_old_cancel(self) -> None:
        """For the process that is about to compute; a request made since it was started stays."""
        try:
            written = self.written_state()
        except RunError:  # a damaged status.json, which that process writes anew
            written = RunState(self.unstarted)
        just_started = written.status == self.starting and written.updated
        if not just_started and not self.is_locked():
            self.clear_cancel()

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for this process. Raises RunError when another process computes it."""
        refusal = f"{self.called} is being computed by another process; watch it or cancel it"
        return files.held(self.folder / "worker.lock", refusal)

    def is_locked(self) -> bool:
        """Whether a living process computes it."""
        return files.is_held(self.folder / "worker.lock")


def status_of(job: JobFolder) -> str:
    """Its status; a damaged status.json is an interruption, and hides nothing else of it."""
    try:
        return job.state().status
    except RunError:
        return "interrupted"


def check_id(what: str, text: str) -> None:
    """Raises InvalidValueError for what cannot be the id of a `what`, such as a path that leads elsewhere."""
    if not ID.match(text):
        raise InvalidValueError(
            f"{what} id '{text[:80]}' is not valid: 6 to 64 lower-case letters, digits and dashes"
        )


@contextmanager
def ending(end: Callable[[str, str], None], cancelled: str) -> Iterator[None]:
    """Compute inside; `end(status, message)` then says how it ended, whatever happened.

    cancelled: the message when it was cancelled. What was raised goes on; exhausted memory becomes a RunError.
    """
    try:
        yield
    except Cancelled:
        end("cancelled", cancelled)
        raise
    except CopalError as error:
        end("failed", str(error))
        raise
    except BaseException as error:
        if _is_exhausted(error):
            end("failed", _EXHAUSTED)
            raise RunError(_EXHAUSTED) from error
        end("failed", f"a defect: {type(error).__name__}: {error}")
        raise
    end("done", "")


def _is_exhausted(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # not imported for this: only a process that computes has its error
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))
