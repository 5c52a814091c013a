"""Waiting for other processes, holding them still, and ending them at a counted moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")

_AT_THE_FIRST_BLOCK = """
import os, signal, sys
from copal_core.cli import main
from copal_core.store import RunStore
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


def process_of(run: str) -> psutil.Process:
    """Wait for the process that computes a run, found by the run's id in its command line.

    A test that suspends it has all the time it needs, however fast the run would end.
    """

    def find() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            if run in (process.info["cmdline"] or []) and "copal_core" in process.info["cmdline"]:
                return process
        return None

    return wait_until(find, f"no process computes the run '{run}'")
