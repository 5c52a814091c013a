"""A folder that one process at a time computes: where it stands, who holds it, and the request to stop.

status.json   where it stands
worker.lock   held by the process that computes it, as long as that lives
cancel        asks that process to stop
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from copal_core.errors import Cancelled, CopalError, InvalidValueError, RunError
from copal_core.system import files, sharing
from copal_core.system.clock import now

ID = re.compile(r"^[a-z0-9][a-z0-9-]{5,63}\Z")
ACTIVE = ("created", "starting", "running")  # a process computes it, or is about to
STATUSES = (*ACTIVE, "waiting", "done", "failed", "cancelled", "interrupted", "none")
_SOON = datetime.timedelta(minutes=1)
_EXHAUSTED = "the machine's memory is exhausted; resume when more is free, or use a smaller protocol"


def _zoned(text: str) -> str:
    if text and datetime.datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time needs its zone")
    return text


# validated when a file is read: a damaged one may still parse
_Status = Annotated[str, Field(pattern=f"^({'|'.join(STATUSES)})$")]
_Count = Annotated[int, Field(strict=True, gt=-(2**40), lt=2**40)]
_Number = Annotated[float, Field(strict=True, gt=-(2**40), lt=2**40)]
_Time = Annotated[str, AfterValidator(_zoned)]


@dataclass(frozen=True)
class RunState:
    """State of a job. status: created (a group: starting), running, done, failed, cancelled or interrupted.

    Before it is started: created (a group: waiting; an attribution: none).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    status: _Status = "created"
    message: str = ""
    progress: _Number = 0.0
    phase: str = ""
    method: str = ""
    step: _Count = 0
    block: _Count = 0
    seconds_left: _Number | None = None
    updated: _Time = ""


_STATE = TypeAdapter(RunState)


class JobFolder:
    """Folder of a run, a group or an attribution.

    called: its name in messages, such as "run 'x'".
    """

    unstarted: ClassVar[str] = "created"
    starting: ClassVar[str] = "created"
    again: ClassVar[str] = "resume it"  # what to do with one that ended early

    def __init__(self, folder: Path, called: str) -> None:
        self.folder = folder
        self.called = called

    def state(self) -> RunState:
        """Return the last state written; 'interrupted' when it claims a process and none holds the folder."""
        state = self.written_state()
        if self._claims_a_process(state) and not self.is_locked():
            state = self.written_state()  # it may have ended, and said so, between the two looks
            if self._claims_a_process(state):
                message = f"the process ended before it was done; {self.again}"
                return replace(state, status="interrupted", message=message)
        return state

    def written_state(self) -> RunState:
        """Return the last state written, of a living process or a dead one. Raises RunError when it is damaged."""
        path = self.folder / "status.json"
        if not path.exists():
            return RunState(self.unstarted)
        try:
            return _STATE.validate_python(files.read_json(path))
        except ValidationError:
            raise RunError(f"status.json of {self.called} is damaged; {self.again}") from None

    def set_state(self, state: RunState) -> None:
        stamped = replace(state, updated=now())
        files.write_json(self.folder / "status.json", asdict(stamped), durable=state.status not in ACTIVE)

    def _claims_a_process(self, state: RunState) -> bool:
        """Tell whether the state says that a process computes the job, or has had a minute to begin to."""
        if state.status == self.starting:
            return not _just_now(state.updated)
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
        """Tell whether a living process computes the job."""
        return files.is_held(self.folder / "worker.lock")


def _just_now(updated: str) -> bool:
    """Tell whether a time is at most a minute from now; a clock that was set back makes it lie in the future."""
    if not updated:
        return True
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(updated)
    return abs(age) <= _SOON


def status_of(job: JobFolder) -> str:
    """Its status; a damaged status.json is an interruption, and hides nothing else of it."""
    try:
        return job.state().status
    except RunError:
        return "interrupted"


def check_id(what: str, text: str) -> None:
    """Raise InvalidValueError for a text that is no id of a `what`, such as a path that leads elsewhere."""
    if not ID.match(text):
        raise InvalidValueError(
            f"{what} id '{text[:80]}' is not valid: 6 to 64 lower-case letters, digits and dashes"
        )


@contextmanager
def record_outcome(end: Callable[[str, str], None], cancelled: str) -> Iterator[None]:
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
