"""Waiting for other processes, holding them still, and ending them at a counted moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

from copal_core.store.folder import JobFolder

T = TypeVar("T")

_AT_THE_FIRST_BLOCK = """
import os, signal, sys
from copal_core.cli.main import main
from copal_core.store.run_store import RunStore
append = RunStore.append_event
def append_and_end(store, event):
    append(store, event)
    if event["event"] == "block":
        os.kill(os.getpid(), signal.{signal})
RunStore.append_event = append_and_end
sys.exit(main([word for word in sys.argv[1:] if word not in ("-m", "copal_core")]))
"""


def ended_by(signal: str) -> str:
    """A program: the command line, whose own process is sent `signal` when its run has finished a block.

    No machine is so fast that its run ends before the signal comes.
    """
    return _AT_THE_FIRST_BLOCK.format(signal=signal)


def wait_until(condition: Callable[[], T], message: str | Callable[[], object], seconds: float = 300) -> T:
    """Poll until `condition()` is true, and return its value.

    The deadline only ends a test that hangs; it is no measure of how fast anything must be.

    Args:
        condition: looked at again and again.
        message: what was waited for, or a function that says how things stand; shown on failure.
        seconds: the deadline.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} seconds: {message() if callable(message) else message}")
        time.sleep(0.02)
    return found


def hold(job: JobFolder) -> psutil.Process:
    """Suspend the process that computes a run or a sweep, and return it; its `resume()` lets it go on.

    What is computed then stays in its middle for as long as a test looks at it.
    """
    wait_until(job.is_locked, lambda: f"nobody computes {job.called}: {job.state()}")
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if job.folder.name in words and "copal_core" in words:
            process.suspend()
            return process
    raise LookupError(f"no process names {job.called}")
