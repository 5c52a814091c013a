"""The Report page through the app: every file is written by a worker, then handed over."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.config import RunConfig
from copal_core.experiment import loop
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.shared import exports, tasks, worker

Opener = Callable[..., AppTest]


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning, *app.success]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def keys(app: AppTest) -> set[str]:
    return {button.key for button in app.button}


def wait(arguments: exports.Arguments) -> tasks.Task:
    task = tasks.find(*arguments)
    assert task is not None
    assert task.finished.wait(300)
    return task


@pytest.fixture
def computed(runs_folder: Path, small_config: Callable[..., RunConfig]) -> RunStore:
    store = Runs(runs_folder).create(small_config(["copal:accumulate", "whitened-svd:restart"]), title="A")
    loop.run(store)
    return store


def test_a_report_is_written_and_handed_over(computed: RunStore, open_page: Opener) -> None:
    app = open_page("report", run=computed.id)
    assert {"write-report", "write-bundle", "write-tables", "write-masks", "write-checkpoint"} <= keys(app)
    assert "Protocol: " in text_of(app)
    app.button(key="write-report").click().run()
    arguments = exports.arguments(computed, "report")
    assert wait(arguments).error is None
    app.run()
    assert not app.exception
    assert "write-report" not in keys(app)
    (download,) = app.get("download_button")
    assert download.label.startswith("Download ")
    path = exports.out_of(arguments)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    computed.describe(title="Another")  # what is handed out is never older than the run
    app.run()
    assert "write-report" in keys(app)


def test_a_checkpoint_counts_once_it_was_measured_again(computed: RunStore, open_page: Opener) -> None:
    app = open_page("report", run=computed.id, step="1")
    app.button(key="write-checkpoint").click().run()
    arguments = exports.arguments(computed, "checkpoint", "copal:accumulate", 1, "hf")
    found = wait(arguments)
    assert found.error is None and found.result is not None
    app.run()
    assert not app.exception
    assert "Read back through transformers" in text_of(app)
    for pair in found.result["domains"].values():
        assert pair["reloaded"] == pytest.approx(pair["run"], rel=1e-3)
    assert (Path(found.result["folder"]) / "config.json").is_file()


def test_what_is_not_possible_says_why(
    computed: RunStore, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("report", run=computed.id, method="whitened-svd:restart")
    assert "factors and no masks" in text_of(app)
    monkeypatch.setattr("copal_core.export.checkpoints.find_spec", lambda name: None)
    app.button_group(key="checkpoint-format").set_value("compressed-tensors").run()
    assert "sparse-24-bitmask" in text_of(app)
    assert "pip install compressed-tensors" in text_of(app)
    assert "write-checkpoint" not in keys(app)


def test_files_of_the_worker(computed: RunStore, runs_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, method, step, form in (
        ("tables", "", 0, "json"), ("masks", "copal:accumulate", 2, ""), ("bundle", "", 0, ""),
    ):  # fmt: skip
        arguments = exports.arguments(computed, kind, method, step, form)
        out = exports.out_of(arguments)
        assert out.is_relative_to(runs_folder / "exports" / computed.id)
        worker.write(*arguments[1:])
        assert zipfile.is_zipfile(out)
    written = (computed.folder / "run.json").stat().st_mtime_ns
    os.utime(computed.folder / "run.json", ns=(written, written + 10**10))  # the run has changed since
    newer = exports.out_of(exports.arguments(computed, "bundle"))
    assert newer.parent != out.parent
    worker.write("bundle", computed.id, str(newer), "", 0, "")
    assert not out.parent.exists()  # older files are not kept
