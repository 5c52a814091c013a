"""Damaged folders, full disks, killed workers, two browsers and odd clocks: a sentence, and nothing lost."""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from copal_core.analysis.results import result_of
from copal_core.config import RunConfig
from copal_core.errors import CopalError, RunError
from copal_core.experiment import processes
from copal_core.store import shelf
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files
from pages.domains import uploads
from pages.shared import tasks
from tests.support import ended_by

KINDS = ("run.json", "status.json", "results.sqlite", "events.jsonl", "block-001.safetensors", "worker.lock")
WHERE = ("sensitivity", "runs")


def damaged(content: bytes, how: str, generator: random.Random) -> bytes:
    """`how`: empty, half, zeros, list, other, or flips of up to eight bits."""
    if how == "flips":
        flipped = bytearray(content or b"\0")
        for _ in range(generator.randint(1, 8)):
            flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        return bytes(flipped)
    return {
        "empty": b"", "half": content[: len(content) // 2], "zeros": bytes(len(content)),
        "list": b'[1, "x", null]', "deep": b"[" * 100_000, "other": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    }[how]  # fmt: skip


HOWS = ("empty", "half", "zeros", "list", "deep", "other", "flips", "flips", "flips")


def file_of(folder: Path, kind: str) -> Path:
    (folder / "worker.lock").touch()
    (folder / "events.jsonl").touch()
    return sorted(folder.rglob(kind))[0]


def read_everything(root: Path, run_id: str) -> None:
    """As the pages do; only CopalError may come out."""
    readers: list[Callable[[RunStore], Any]] = [
        lambda store: store.info, lambda store: store.domains, lambda store: store.protocol_stamp(), RunStore.state,
        RunStore.events, RunStore.perplexity, RunStore.layers, RunStore.overlaps, RunStore.warnings, RunStore.seconds,
        result_of, lambda store: store.tiles("copal:accumulate", 1, 1, "q_proj"),
        lambda store: store.masks("copal:accumulate", 1, 1), lambda store: store.finished_blocks("wanda:restart", 1),
    ]  # fmt: skip
    for reader in readers:
        try:
            reader(Runs(root, recorded=root / "none").open(run_id))
        except CopalError as error:
            assert str(error)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, synthetic: Any) -> Path:
    """A root with two finished runs, not to be changed."""
    root = tmp_path_factory.mktemp("damaged") / "runs"
    for name in ("victim-run", "finished-run"):
        synthetic.write_run(root, name, blocks=2, steps=1)
    return root


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), how=st.sampled_from(HOWS), seed=st.integers(0, 10**6))
def test_any_damage_is_an_error_in_words(victim: Path, kind: str, how: str, seed: int) -> None:
    path = file_of(victim / "victim-run", kind)
    before = path.read_bytes()
    path.write_bytes(damaged(before, how, random.Random(seed)))
    after = path.read_bytes()
    try:
        read_everything(victim, "victim-run")
        assert "finished-run" in [run.id for run in Runs(victim, recorded=victim / "none").list()]
        assert path.read_bytes() == after  # looking at it mends nothing, and spoils nothing
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_or_a_folder_in_its_place(victim: Path, kind: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(victim, root)
    path = file_of(root / "victim-run", kind)
    path.unlink()
    read_everything(root, "victim-run")
    path.mkdir()
    read_everything(root, "victim-run")
    assert "finished-run" in [run.id for run in Runs(root, recorded=root / "none").list()]


@pytest.mark.parametrize("kind", KINDS[:5])
def test_pages_say_that_a_folder_is_damaged(
    kind: str, runs_folder: Path, victim: Path, open_page: Callable[..., AppTest]
) -> None:
    shutil.copytree(victim, runs_folder)
    path = file_of(runs_folder / "victim-run", kind)
    path.write_bytes(damaged(path.read_bytes(), "half", random.Random(0)))
    for page in WHERE:
        app = open_page(page, run="victim-run", method="copal:accumulate", step="1", layer="1")
        assert not app.exception, page
    if kind == "run.json":
        assert "cannot be read and is left as it is" in " ".join(one.value for one in app.warning)


def test_a_value_that_cannot_be_is_found(victim: Path, tmp_path: Path) -> None:
    store = RunStore(Path(shutil.copytree(victim / "victim-run", tmp_path / "victim-run")))

    def write(name: str, content: dict[str, Any]) -> None:
        (store.folder / name).write_text(json.dumps(content))

    good = {"status": "running", "progress": 0.5, "updated": "2026-11-21T08:00:00+00:00", "seconds_left": 3}
    write("status.json", good)
    assert store.written_state().progress == 0.5
    for wrong in (
        {"progress": "half"}, {"progress": float("nan")}, {"updated": "yesterday"}, {"updated": "2026-11-21T08:00:00"},
        {"status": "well"}, {"block": 1.5}, {"more": 1}, {"step": True}, {"progress": 1e300},
    ):  # fmt: skip
        write("status.json", {**good, **wrong})
        with pytest.raises(RunError, match="status.json of run 'victim-run' is damaged"):
            store.written_state()
    config = json.loads((store.folder / "run.json").read_text())["config"]
    sound = {"domains": [{"name": "a"}], "checkpoint": {"blocks": 2, "projections": {"q_proj": [4, 4]}}}
    write("run.json", {"config": config, "info": sound})
    assert store.domains[0] == "a"
    for field, wrong in {
        "info": [], "domains": {"domains": "abc"}, "domains.0": {"domains": [1]}, "checkpoint": {"checkpoint": []},
        "checkpoint.blocks": {"checkpoint": {"blocks": "2"}},
        "checkpoint.projections.q_proj.1": {"checkpoint": {"projections": {"q_proj": [4, 0.5]}}},
    }.items():  # fmt: skip
        write("run.json", {"config": config, "info": wrong})
        with pytest.raises(RunError, match=f"run.json of run 'victim-run' holds in '{field}' what cannot be"):
            _ = store.info


@pytest.mark.parametrize(
    ("column", "wrong"), [("pruned", "many"), ("weights", -2), ("score_mean", b"1"), ("method", None)]
)
def test_a_cell_that_cannot_be_is_named(victim: Path, tmp_path: Path, column: str, wrong: object) -> None:
    store = RunStore(Path(shutil.copytree(victim / "victim-run", tmp_path / "victim-run")))
    with closing(sqlite3.connect(store.folder / "results.sqlite")) as connection, connection:
        row = "rowid = (SELECT MAX(rowid) FROM layers)"
        connection.execute(f"UPDATE layers SET {column} = ? WHERE {row}", (wrong,))
    with pytest.raises(RunError, match=f"results.sqlite holds what cannot be in column '{column}' of layers"):
        store.layers()


# -- clocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_leaves_no_run_starting_for_ever(
    hours: int, runs_folder: Path, synthetic: Any, open_page: Callable[..., AppTest]
) -> None:
    store = synthetic.write_run(runs_folder, status="created", steps=1)
    state = json.loads((store.folder / "status.json").read_text())
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    files.write_json(store.folder / "status.json", {**state, "updated": moment.isoformat()})
    store.describe(created=moment.isoformat())
    assert store.state().status == "interrupted"
    app = open_page("prune", run=store.id)
    assert not app.exception
    assert app.button(key="resume-run")


# -- two browsers ----------------------------------------------------------------------------------------


def test_two_browsers_on_one_run(
    runs_folder: Path, synthetic: Any, open_page: Callable[..., AppTest]
) -> None:
    store = synthetic.write_run(runs_folder, title="first")
    one, two = open_page("runs", run=store.id), open_page("runs", run=store.id)
    shelf.rename(store, "renamed elsewhere")
    two.button(key="delete-run").click().run()
    assert not two.exception
    assert [run.title for run in shelf.trashed(runs_folder)] == ["renamed elsewhere"]
    one.button(key="delete-run").click().run()  # its page still shows the run
    assert not one.exception
    assert one.error
    assert shelf.restore(runs_folder, store.id).perplexity().shape[0] > 0


# -- a full disk -----------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """full_disk(): from now on nothing new can be written."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = os.open

    def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT and not os.path.exists(path):
            refuse()
        return opened(path, flags, *arguments, **options)

    def fill() -> None:
        monkeypatch.setattr(tempfile, "mkstemp", refuse)
        monkeypatch.setattr(Path, "touch", refuse)
        monkeypatch.setattr(Path, "write_bytes", refuse)
        monkeypatch.setattr(os, "open", open_)

    yield fill
    monkeypatch.undo()


def test_a_full_disk_is_said_and_loses_nothing(
    runs_folder: Path, synthetic: Any, open_page: Callable[..., AppTest], full_disk: Callable[[], None]
) -> None:
    finished = synthetic.write_run(runs_folder, "finished-run")
    working = synthetic.write_run(runs_folder, "working-run", status="running", steps=1)
    before = {path: path.read_bytes() for path in runs_folder.rglob("*") if path.is_file()}
    with working.lock():
        watching, listing = open_page("prune", run=working.id), open_page("runs", run=finished.id)
        full_disk()
        watching.button(key="cancel-run").click().run()
        listing.button(key="delete-run").click().run()
        for app in (watching, listing):
            assert not app.exception
            assert "disk is full" in " ".join(error.value for error in app.error)
        with pytest.raises(RunError, match="disk is full"):
            shelf.rename(finished, "another title")
        with pytest.raises(CopalError, match="disk is full"):
            uploads.keep("notes.txt", b"notes")
    assert before == {path: path.read_bytes() for path in before} != {}


# -- killed processes ------------------------------------------------------------------------------------


def test_a_killed_worker_leaves_a_run_to_resume(
    runs_folder: Path,
    small_config: Callable[..., RunConfig],
    open_page: Callable[..., AppTest],
    tmp_path: Path,
) -> None:
    methods = ["copal:accumulate", "sparsegpt:joint", "wanda:joint", "magnitude:restart"]
    store = Runs(runs_folder).create(small_config(methods, domains=3))
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{ended_by('SIGKILL')}")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes.sys, "executable", str(program))
        processes.start(store)
    assert processes._children[-1].wait() == -signal.SIGKILL
    assert len(store.perplexity()) == 3  # those of the dense model
    assert store.finished_blocks(methods[0], 1) == 1
    assert store.state().status == "interrupted"
    app = open_page("prune", run=store.id)
    assert not app.exception
    assert "interrupted" in " ".join(warning.value for warning in app.warning)
    app.button(key="resume-run").click().run()
    assert not app.exception
    processes._children[-1].wait()
    assert store.state().status == "done"
    assert len(store.perplexity()) == 3 * (1 + 3 * len(methods))


def test_a_killed_task_is_said(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    monkeypatch.setattr("sys.executable", "/bin/sh")
    monkeypatch.setattr(tasks.json, "dumps", lambda content: "")

    class Killed(tasks.subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__(["/bin/sh", "-c", "kill -9 $$"], **options)

    monkeypatch.setattr(tasks.subprocess, "Popen", Killed)
    task = tasks.Task(("prepare", "tiny"))
    assert task.finished.wait(300)
    assert isinstance(task.error, CopalError) and "signal 9" in str(task.error)
