"""Tasks of a few seconds to a minute outside the server's process, watched by a page with a progress bar.

A task goes on when its page is left, and is found again when it is opened.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from copal_core.errors import CopalError
from copal_core.system import queueing
from copal_core.system.paths import runs_root
from pages.shared.text import plain, show_error

_ROOT = Path(__file__).resolve().parents[2]
_KEPT = 40  # finished tasks whose results stay at hand


class Task:
    """One worker process and what it said last."""

    def __init__(self, arguments: tuple[Hashable, ...]) -> None:
        self.label, self.done, self.total = "Starting", 0, 0
        self.result: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        command = [sys.executable, "-m", "pages.shared.worker"]
        self._errors: list[str] = []
        try:
            turn = queueing.enqueue(runs_root(), Path("task", secrets.token_hex(8)), "tasks")
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, **turn},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except (CopalError, OSError) as error:
            self.error = CopalError(f"no process could be started ({error}); try again")
            self.finished.set()
            return
        reading = threading.Thread(target=self._read_errors, daemon=True)
        reading.start()
        threading.Thread(target=self._follow, args=(reading, json.dumps(arguments)), daemon=True).start()

    @property
    def share(self) -> float:
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 0.0

    def _follow(self, reading: threading.Thread, arguments: str) -> None:
        with suppress(OSError):  # a process that ended early; its status is looked at below
            if self._process.stdin is not None:
                self._process.stdin.write(arguments)
                self._process.stdin.close()
        for line in self._process.stdout or ():
            try:
                self._take(json.loads(line))
            except ValueError:
                continue  # a library's own print
        code = self._process.wait()
        reading.join(timeout=5)
        if self.result is None and self.error is None and code < 0:
            why = "; the machine's memory may be exhausted" if code == -signal.SIGKILL else ""
            self.error = CopalError(f"its process was stopped from outside (signal {-code}){why}; try again")
        elif self.result is None and self.error is None:
            self.error = RuntimeError(f"the worker ended with status {code}: {''.join(self._errors[-12:])}")
        self.finished.set()

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if "result" in message:
            self.result = message["result"]
        elif "error" in message:
            self.error = CopalError(message["error"])
        elif "label" in message:
            self.label, self.done, self.total = message["label"], message["done"], message["total"]

    def _read_errors(self) -> None:
        for line in self._process.stderr or ():
            self._errors = [*self._errors[-50:], line]


def start(*arguments: Hashable) -> None:
    """Start a task unless the very same one is at work or finished well."""
    tasks = _tasks()
    with _starting:  # every session has a thread of its own
        known = tasks.get(arguments)
        if known is None or known.error is not None:
            for old in [key for key, task in list(tasks.items()) if task.finished.is_set()][:-_KEPT]:
                tasks.pop(old, None)
            tasks[arguments] = Task(arguments)


_starting = threading.Lock()


def find(*arguments: Hashable) -> Task | None:
    """The task with these arguments, at work or finished, or None when it was never started."""
    return _tasks().get(arguments)


def forget(*arguments: Hashable) -> None:
    """Drop a finished task, so that it may be started again."""
    _tasks().pop(arguments, None)


def at_work(task: Task | None, heading: str = "") -> bool:
    """Return True while the task runs, with a progress bar which runs the page again when it is over.

    heading: above the bar. Of a task that failed, an error that the person can mend is shown; another is raised.
    """
    if task is None:
        return False
    if not task.finished.is_set():
        if heading:
            st.markdown(f"**{heading}**")
        _watch(task)
        return True
    if isinstance(task.error, CopalError):
        show_error(task.error)
    elif task.error is not None:
        raise task.error
    return False


@st.fragment(run_every=0.5)
def _watch(task: Task) -> None:
    if task.finished.is_set():
        st.rerun()
    st.progress(task.share, text=plain(task.label))


@st.cache_resource(show_spinner=False)
def _tasks() -> dict[tuple[Hashable, ...], Task]:
    return {}
