"""Thread counts come back, whoever else computes meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from copal_core.system.torch_settings import one_thread


@pytest.fixture
def usual() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_nested_and_failing(usual: int) -> None:
    with pytest.raises(ValueError), one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
        raise ValueError
    assert torch.get_num_threads() == usual


def test_two_at_once_do_not_leave_one_thread_behind(usual: int) -> None:
    """The second begins while the first computes, and ends after it."""
    begun, first_left, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        with one_thread():
            begun.set()
            first_left.wait()
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=second)
    with one_thread():
        other.start()
        assert begun.wait(300)
    first_left.set()
    other.join()
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen == [usual, usual] and torch.get_num_threads() == usual
