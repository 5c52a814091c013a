"""Fair queue of a shared server: one queue for all work, and a limit on concurrent processes.

The page or command that starts a process first enqueues a ticket for it; the process waits until its ticket is next.
The queue is a file beside the runs, and every process locks its ticket for as long as it lives, so that neither a
killed process nor a killed server leaves a stale entry. The person who was served least recently is served next.

    COPAL_SHARED_JOBS    runs, groups and the like at once; 1 by default
    COPAL_SHARED_TASKS   tasks of a minute that pages wait for, at once; 2 by default
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from copal_core.errors import CopalError, InvalidValueError, RunError
from copal_core.system import files, sharing
from copal_core.system.clock import now

_BOUNDS = {"jobs": ("COPAL_SHARED_JOBS", 1), "tasks": ("COPAL_SHARED_TASKS", 2)}
_TICKET = "COPAL_TICKET"
_TO_BEGIN = 60.0  # seconds in which the process of a new ticket must have begun to hold it
_POLL, _TELL = 0.5, 10.0  # seconds between two reads of the queue, and between two notes in the job's folder
_REMEMBERED = 500  # people


@dataclass
class Ticket:
    """One process's place in the queue.

    Attributes:
        number: of the ticket; later tickets have larger numbers.
        person: the owner, as `sharing.person` names them.
        folder: of the job that the process computes.
        taken: when it was enqueued, in seconds since the epoch.
        held: True once the process holds its lock.
        running: True once its turn has come.
    """

    number: int
    person: str
    folder: str
    taken: float
    held: bool = False
    running: bool = False


@dataclass
class _Queue:
    """Contents of the queue's file. `served` maps a person to the turn in which they were last served."""

    following: int = 1
    turn: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)


def in_order(waiting: Sequence[Ticket], served: Mapping[str, int]) -> list[Ticket]:
    """Return the tickets in the order of service.

    Each next ticket is the oldest one of the person who was served least recently.

    Args:
        waiting: tickets whose turn has not come.
        served: person -> the turn in which they were last served.
    """
    remaining, last_turn, ordered = list(waiting), dict(served), []
    turn = max(last_turn.values(), default=0)
    while remaining:
        following = min(remaining, key=lambda ticket: (last_turn.get(ticket.person, 0), ticket.number))
        remaining.remove(following)
        ordered.append(following)
        turn += 1
        last_turn[following.person] = turn
    return ordered


def enqueue(root: Path, folder: Path, lane: str = "jobs") -> dict[str, str]:
    """Add a ticket for a process that computes `folder`.

    Args:
        root: the folder of runs, in which the queue is kept.
        folder: of the job to be computed.
        lane: "jobs" or "tasks"; each has its own queue and limit.

    Returns:
        Environment variables to start the process with; empty unless the server is shared.

    Raises:
        RunError: a process for that folder is already waiting or running.
    """
    if not sharing.enabled():
        return {}
    _limit(lane)
    place = root / "turns" / lane
    with _locked_queue(place) as queue:
        if any(ticket.folder == str(folder) for ticket in queue.tickets):
            raise RunError(f"'{folder.name}' is waiting for its turn or being computed already; watch it")
        ticket = Ticket(queue.following, sharing.person(), str(folder), time.time())
        queue.following += 1
        queue.tickets.append(ticket)
    return {_TICKET: json.dumps([str(place), asdict(ticket)]), "COPAL_PERSON": ticket.person}


def give_back(environment: Mapping[str, str]) -> None:
    """Undo `enqueue` when the process could not be started."""
    if _TICKET in environment:
        place, ticket = json.loads(environment[_TICKET])
        _leave(Path(place), ticket["number"])


def _leave(place: Path, number: int) -> None:
    with _locked_queue(place) as queue:
        queue.tickets = [ticket for ticket in queue.tickets if ticket.number != number]


_held: list[tuple[Path, Ticket, FileLock]] = []  # the queue's folder, the ticket and the lock of this process


def wait(tell: Callable[[str], None] | None = None) -> None:
    """Wait for this process's turn if it was started with a ticket; return early if its job is cancelled.

    Args:
        tell: receives the position in the queue in words; by default it becomes the message in the folder's
            status.json.
    """
    encoded = os.environ.pop(_TICKET, "")
    if not encoded:
        return
    queue_folder, fields = json.loads(encoded)
    place, ticket = Path(queue_folder), Ticket(**fields)
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{ticket.number}.lock")
    lock.acquire()
    _held.append((place, ticket, lock))  # until the process ends
    _wait(place, ticket, tell)


def pass_on() -> None:
    """Yield to others between two parts of a long job if it is their turn."""
    for place, ticket, _ in list(_held):
        _wait(place, ticket, None)


def _wait(place: Path, ticket: Ticket, tell: Callable[[str], None] | None) -> None:
    told, told_at, folder = "", 0.0, Path(ticket.folder)
    while True:
        ahead = _tickets_ahead(place, ticket)
        if ahead is None:
            if told and tell is None:
                _note(folder, "the process is starting")
            return
        if (folder / "cancel").exists():
            _leave(place, ticket.number)
            for entry in [entry for entry in _held if entry[1] is ticket]:
                entry[2].release()
                _held.remove(entry)
            return
        words = f"waiting for its turn: {ahead} before it" if ahead else "next to be computed"
        if words != told or time.monotonic() - told_at > _TELL:
            if tell is not None:
                tell(words)
            else:
                _note(folder, words)
            told, told_at = words, time.monotonic()
        time.sleep(_POLL)


def _tickets_ahead(place: Path, ticket: Ticket) -> int | None:
    """Return how many tickets are served before this process's; None when its turn has come."""
    with _locked_queue(place) as queue:
        others = [other for other in queue.tickets if other.number != ticket.number]
        mine = replace(ticket, held=True)
        waiting = in_order([mine, *(other for other in others if not other.running)], queue.served)
        # everyone served earlier, and everyone running now, less the places that run at once
        ahead = waiting.index(mine) + sum(other.running for other in others) - _limit(place.name) + 1
        if ahead <= 0:
            mine = replace(mine, running=True)
            queue.turn += 1
            queue.served[mine.person] = queue.turn
        queue.tickets = [*others, mine]
        return ahead if ahead > 0 else None


def _note(folder: Path, words: str) -> None:
    """Write the words as the message in the folder's status.json, which also refreshes its time stamp."""
    path = folder / "status.json"
    try:
        content = files.read_json(path)
        if isinstance(content, dict):
            files.write_json(path, {**content, "message": words, "updated": now()}, durable=False)
    except CopalError:
        return  # the process reports a damaged folder itself when its turn comes


def _limit(lane: str) -> int:
    name, default = _BOUNDS[lane]
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InvalidValueError(f"{name} = '{text[:40]}' is not a number of processes; use 1 to 1000")
    return int(text)


@contextmanager
def _locked_queue(place: Path) -> Iterator[_Queue]:
    """Yield the queue without tickets of dead processes, then write it back; one process at a time."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "queue.lock"):
            queue = _read(place / "queue.json")
            before = json.dumps(asdict(queue))
            queue.tickets = [ticket for ticket in queue.tickets if _is_alive(place, ticket)]
            yield queue
            # sorted, so that a queue that was only read compares equal and is not rewritten
            queue.tickets.sort(key=lambda ticket: ticket.number)
            recent = sorted(queue.served, key=lambda person: queue.served[person])[-_REMEMBERED:]
            queue.served = {person: queue.served[person] for person in recent}
            if json.dumps(asdict(queue)) != before:
                files.write_json(place / "queue.json", asdict(queue), durable=False)
    except OSError as error:
        raise files.readable(place / "queue.json", error) from error


def _read(path: Path) -> _Queue:
    """Read the queue; a damaged file is rebuilt from the locks of living processes, the waiting ones re-enter."""
    try:
        content: dict[str, Any] = files.read_json(path)
        tickets = [Ticket(**fields) for fields in content["tickets"]]
        served = {str(person): int(turn) for person, turn in content["served"].items()}
        return _Queue(int(content["following"]), int(content["turn"]), tickets, served)
    except (CopalError, KeyError, TypeError, ValueError, AttributeError):
        numbers = sorted(int(lock.stem) for lock in path.parent.glob("*.lock") if lock.stem.isdecimal())
        tickets = [Ticket(number, "", "", time.time(), held=True, running=True) for number in numbers]
        return _Queue(following=max(numbers, default=0) + 1000, tickets=tickets)


def _is_alive(place: Path, ticket: Ticket) -> bool:
    """Return whether a process holds the ticket or still has time to begin."""
    if not ticket.held:
        return 0 <= time.time() - ticket.taken < _TO_BEGIN
    if any(place == folder and ticket.number == mine.number for folder, mine, _ in _held):
        return True
    path = place / f"{ticket.number}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    path.unlink(missing_ok=True)
    return False
