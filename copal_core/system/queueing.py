"""Taking turns on a shared server: one queue for everyone's work, and a bound on what is computed at once.

Whoever starts a process takes a ticket for it; the process waits until its ticket is next. The queue is a file
beside the runs, and every process keeps a lock on its ticket as long as it lives, so that neither a killed process
nor a killed server leaves anything behind. The person who was served longest ago is served next.

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
_LOOK, _TELL = 0.5, 10.0  # seconds between two looks at the queue, and between two notes in the job's folder
_REMEMBERED = 500  # people


@dataclass
class Ticket:
    """One process's place in the queue. folder: of what it computes; taken: seconds since the epoch.

    held: whether the process has begun to hold its lock. running: whether its turn has come.
    """

    number: int
    person: str
    folder: str
    taken: float
    held: bool = False
    running: bool = False


@dataclass
class _Queue:
    """served: person -> the number of the turn in which they were served last."""

    following: int = 1
    turn: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)


def in_order(waiting: Sequence[Ticket], served: Mapping[str, int]) -> list[Ticket]:
    """Who is served after whom: the oldest ticket of the person who was served longest ago, and so on."""
    left, last, found = list(waiting), dict(served), []
    turn = max(last.values(), default=0)
    while left:
        following = min(left, key=lambda one: (last.get(one.person, 0), one.number))
        left.remove(following)
        found.append(following)
        turn += 1
        last[following.person] = turn
    return found


def take(root: Path, folder: Path, lane: str = "jobs") -> dict[str, str]:
    """A ticket for a process that computes `folder`: environment variables to start it with; none unless shared.

    Raises RunError when one is waiting or at work for that folder already.
    """
    if not sharing.enabled():
        return {}
    _bound(lane)
    place = root / "turns" / lane
    with _opened(place) as queue:
        if any(one.folder == str(folder) for one in queue.tickets):
            raise RunError(f"'{folder.name}' is waiting for its turn or being computed already; watch it")
        ticket = Ticket(queue.following, sharing.person(), str(folder), time.time())
        queue.following += 1
        queue.tickets.append(ticket)
    return {_TICKET: json.dumps([str(place), asdict(ticket)]), "COPAL_PERSON": ticket.person}


def give_back(environment: Mapping[str, str]) -> None:
    """Undo `take`, when the process could not be started."""
    if _TICKET in environment:
        place, given = json.loads(environment[_TICKET])
        _leave(Path(place), given["number"])


def _leave(place: Path, number: int) -> None:
    with _opened(place) as queue:
        queue.tickets = [one for one in queue.tickets if one.number != number]


_held: list[tuple[Path, Ticket, FileLock]] = []  # the place and the ticket of this process


def wait(tell: Callable[[str], None] | None = None) -> None:
    """Wait until this process may compute, if it was started with a ticket; at most its cancellation ends that early.

    tell: receives where it stands in words; by default they become the message in the folder's status.json.
    """
    given = os.environ.pop(_TICKET, "")
    if not given:
        return
    where, content = json.loads(given)
    place, ticket = Path(where), Ticket(**content)
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{ticket.number}.lock")
    lock.acquire()
    _held.append((place, ticket, lock))  # until the process ends
    _wait(place, ticket, tell)


def pass_on() -> None:
    """Between two parts of long work: let others be served first if it is their turn."""
    for place, ticket, _ in list(_held):
        _wait(place, ticket, None)


def _wait(place: Path, ticket: Ticket, tell: Callable[[str], None] | None) -> None:
    told, when, folder = "", 0.0, Path(ticket.folder)
    while True:
        before = _look(place, ticket)
        if before is None:
            if told and tell is None:
                _note(folder, "the process is starting")
            return
        if (folder / "cancel").exists():
            _leave(place, ticket.number)
            for one in [held for held in _held if held[1] is ticket]:
                one[2].release()
                _held.remove(one)
            return
        words = f"waiting for its turn: {before} before it" if before else "next to be computed"
        if words != told or time.monotonic() - when > _TELL:
            if tell is not None:
                tell(words)
            else:
                _note(folder, words)
            told, when = words, time.monotonic()
        time.sleep(_LOOK)


def _look(place: Path, ticket: Ticket) -> int | None:
    """How many are served before the ticket of this process; None when its turn has come."""
    with _opened(place) as queue:
        queue.tickets = [one for one in queue.tickets if one.number != ticket.number]
        mine = replace(ticket, held=True)
        waiting = in_order([mine, *(one for one in queue.tickets if not one.running)], queue.served)
        before = waiting.index(mine) + sum(one.running for one in queue.tickets) - _bound(place.name) + 1
        if before <= 0:
            mine = replace(mine, running=True)
            queue.turn += 1
            queue.served[mine.person] = queue.turn
        queue.tickets.append(mine)
        return before if before > 0 else None


def _note(folder: Path, words: str) -> None:
    """Write the words as the message of the folder's status.json: it then also looks alive."""
    path = folder / "status.json"
    try:
        content = files.read_json(path)
        if isinstance(content, dict):
            files.write_json(path, {**content, "message": words, "updated": now()}, durable=False)
    except CopalError:
        return  # the process says so itself when its turn comes


def _bound(lane: str) -> int:
    name, default = _BOUNDS[lane]
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InvalidValueError(f"{name} = '{text[:40]}' is not a number of processes; use 1 to 1000")
    return int(text)


@contextmanager
def _opened(place: Path) -> Iterator[_Queue]:
    """The queue's file, read, without those that died, and written again; one process at a time."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "queue.lock"):
            queue = _read(place / "queue.json")
            before = json.dumps(asdict(queue))
            queue.tickets = [one for one in queue.tickets if _lives(place, one)]
            yield queue
            queue.tickets.sort(key=lambda one: one.number)  # a look that changes nothing writes nothing
            recent = sorted(queue.served, key=lambda person: queue.served[person])[-_REMEMBERED:]
            queue.served = {person: queue.served[person] for person in recent}
            if json.dumps(asdict(queue)) != before:
                files.write_json(place / "queue.json", asdict(queue), durable=False)
    except OSError as error:
        raise files.readable(place / "queue.json", error) from error


def _read(path: Path) -> _Queue:
    """A queue whose file is damaged begins anew with the processes that live; those who wait then say so."""
    try:
        content: dict[str, Any] = files.read_json(path)
        tickets = [Ticket(**one) for one in content["tickets"]]
        served = {str(person): int(turn) for person, turn in content["served"].items()}
        return _Queue(int(content["following"]), int(content["turn"]), tickets, served)
    except (CopalError, KeyError, TypeError, ValueError, AttributeError):
        numbers = sorted(int(one.stem) for one in path.parent.glob("*.lock") if one.stem.isdecimal())
        tickets = [Ticket(number, "", "", time.time(), held=True, running=True) for number in numbers]
        return _Queue(following=max(numbers, default=0) + 1000, tickets=tickets)


def _lives(place: Path, ticket: Ticket) -> bool:
    """Whether a process holds the ticket, or may still come to."""
    if not ticket.held:
        return 0 <= time.time() - ticket.taken < _TO_BEGIN
    if any(place == where and ticket.number == mine.number for where, mine, _ in _held):
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
