"""The bound on cached statistics."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from copal_core.errors import InvalidValueError
from copal_core.statistics import cache_room


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four folders of 1 MB, the first looked at longest ago."""
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path))
    made = []
    for age in (4, 3, 2, 0):
        folder = tmp_path / "statistics" / f"text-{age}"
        (folder / "input_gram").mkdir(parents=True)
        (folder / "input_gram" / "complete.json").write_text("{}")
        (folder / "input_gram" / "block-000.safetensors").write_bytes(bytes(1_000_000))
        os.utime(folder, (time.time() - 86400 * age,) * 2)
        made.append(folder)
    return made


def test_nothing_goes_while_there_is_room(folders: list[Path]) -> None:
    assert cache_room.make_room([]) == [] and all(folder.exists() for folder in folders)


def test_the_oldest_go_first_until_the_rest_fits(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_STATISTICS_GB", "0.0025")
    assert cache_room.make_room([]) == folders[:2]
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_what_is_in_use_or_was_just_looked_at_stays(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_STATISTICS_GB", "0.000001")
    cache_room.touch(folders[1])
    assert cache_room.make_room([folders[0]]) == [folders[2]]
    assert [folder.exists() for folder in folders] == [True, True, False, True]


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan"])
def test_a_bound_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_STATISTICS_GB", text)
    with pytest.raises(InvalidValueError, match="gigabytes"):
        cache_room.bound()
