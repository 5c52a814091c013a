"""Folders and files that are whole or absent, and those of which only the newest stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from copal_core.errors import RunError
from copal_core.system import files


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with files.making(out) as folder:
        (folder / "x").write_text("1")
        assert not out.exists()
    assert (out / "x").read_text() == "1" and os.listdir(out.parent) == ["out"]
    with pytest.raises(RunError, match="not empty"), files.making(out):
        pass
    assert (out / "x").read_text() == "1"


@pytest.mark.parametrize(
    ("raised", "seen"), [(OSError(28, "No space left"), RunError), (KeyError("x"), KeyError)]
)
def test_a_folder_that_was_not_finished_leaves_nothing(
    tmp_path: Path, raised: Exception, seen: type[Exception]
) -> None:
    with pytest.raises(seen), files.making(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        raise raised
    assert os.listdir(tmp_path) == []


def test_the_newest_stay_and_others_may_delete_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}.json").write_text("")
        os.utime(tmp_path / f"{number}.json", (number, number))
    (tmp_path / "other.txt").write_text("")
    gone, look = tmp_path / "1.json", Path.stat

    def deleted_meanwhile(path: Path, **options: bool) -> os.stat_result:
        if path == gone:
            raise FileNotFoundError
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", deleted_meanwhile)
    files.keep_newest(tmp_path, "*.json", 2)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["1.json", "3.json", "4.json", "other.txt"]
