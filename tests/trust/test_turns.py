"""One queue serves everyone in a fair order, whatever dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copal_core.errors import InvalidValueError, RunError
from copal_core.system import queueing, sharing
from copal_core.system.queueing import Ticket, in_order
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]
# writes its name when its turn has come, and is then done, or at work until it is killed
_WORK = (
    "import signal, sys; from copal_core.system import queueing; queueing.wait(); "
    "file = open(sys.argv[1], 'a'); file.write(sys.argv[2] + '\\n'); file.flush(); "
    "sys.argv[3] == 'long' and signal.pause()"
)


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_SHARED", "1")
    monkeypatch.delenv("COPAL_SHARED_JOBS", raising=False)


def tickets(people: str) -> list[Ticket]:
    return [Ticket(number, person, "", 0.0) for number, person in enumerate(people, start=1)]


def served(people: str, before: dict[str, int] | None = None) -> str:
    return "".join(ticket.person for ticket in in_order(tickets(people), before or {}))


def test_people_are_served_in_turn() -> None:
    assert served("abcde") == "abcde"
    assert served("aaabc") == "abcaa"
    assert served("aaabbcc") == "abcabca"
    assert served("aab", {"a": 7}) == "baa"  # a was served just now
    assert served("") == ""


@given(st.lists(st.sampled_from("abcd"), max_size=24))
def test_nobody_is_served_twice_while_another_waits(people: list[str]) -> None:
    order = served("".join(people))
    assert sorted(order) == sorted(people)
    for place, person in enumerate(order):
        later = order[place + 1 :]
        for other in set(later) - {person}:
            between = later.split(other)[0]
            assert person not in between


class Server:
    """Starts processes that wait for their turn, as jobs.spawn does."""

    def __init__(self, folder: Path) -> None:
        self.root, self.log = folder / "runs", folder / "log"
        self.started: list[subprocess.Popen] = []

    def start(self, name: str, monkeypatch: pytest.MonkeyPatch, work: str = "short") -> subprocess.Popen:
        monkeypatch.setattr(sharing, "_resolver", lambda: name[0])
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(json.dumps({"status": "created", "message": "", "updated": ""}))
        turn = queueing.enqueue(self.root, folder)
        command = [sys.executable, "-c", _WORK, str(self.log), name, work]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **turn})
        self.started.append(process)
        return process

    def order(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def until(self, count: int) -> list[str]:
        wait_until(lambda: len(self.order()) >= count, self.order)
        return self.order()

    def waits(self, name: str) -> bool:
        """Whether the queue's file, whole, holds a ticket for `name` that is not served yet."""
        try:
            queue = json.loads((self.root / "turns" / "jobs" / "queue.json").read_text())
        except ValueError:
            return False
        return any(one["folder"].endswith(f"/{name}") and not one["running"] for one in queue["tickets"])


@pytest.fixture
def server(tmp_path: Path):
    made = Server(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def message(server: Server, name: str) -> str:
    return json.loads((server.root / name / "status.json").read_text())["message"]


def test_five_people_are_served_in_order(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server.start("x1", monkeypatch, work="long")
    assert server.until(1) == ["x1"]
    for name in ("a1", "a2", "b1", "c1", "d1"):
        server.start(name, monkeypatch)
    last = "waiting for its turn: 5 before it"  # x1, and everybody else's first
    wait_until(lambda: message(server, "a2") == last, lambda: message(server, "a2"))
    assert server.order() == ["x1"]  # one at a time
    with pytest.raises(RunError, match="already"):
        queueing.enqueue(server.root, server.root / "a1")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert server.until(6) == ["x1", "a1", "b1", "c1", "d1", "a2"]


def test_killed_and_cancelled_ones_hold_nobody_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server.start("x1", monkeypatch, work="long")
    server.until(1)
    killed = server.start("a1", monkeypatch)
    server.start("b1", monkeypatch, work="long")
    (server.root / "b1" / "cancel").touch()
    assert server.until(2) == ["x1", "b1"]  # a cancelled one goes ahead, to say that it is cancelled
    server.start("c1", monkeypatch)
    killed.kill()
    killed.wait()
    (server.root / "turns" / "jobs" / "queue.json").write_text("{damaged")
    wait_until(lambda: server.waits("c1"), "c1 finds the damaged queue")
    assert server.order() == ["x1", "b1"]  # x1 is still known to be at work
    first.kill()
    first.wait()
    assert "c1" in server.until(3)


def test_bounds_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_SHARED_JOBS", "many")
    with pytest.raises(InvalidValueError, match="COPAL_SHARED_JOBS"):
        queueing.enqueue(tmp_path, tmp_path / "run")
    monkeypatch.setenv("COPAL_SHARED", "0")
    assert queueing.enqueue(tmp_path, tmp_path / "run") == {}
