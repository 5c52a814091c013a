"""The parts of the pages that need no page."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.errors import DomainError
from copal_core.store.folder import JobFolder, RunState
from pages.domains import uploads
from pages.shared import words, worker
from pages.shared.text import plain


def test_plain_leaves_nothing_for_markdown() -> None:
    assert plain("![x](http://y) :red[z] $a$ <b>") == r"\!\[x\]\(http\:\/\/y\)".replace("\\/", "/") + (
        r" \:red\[z\] \$a\$ \<b\>"
    )
    assert plain("two\nlines") == "two lines"


def test_methods_are_known_without_importing_them() -> None:
    from copal_core.methods.criteria import CRITERIA
    from copal_core.methods.strategies import STRATEGIES

    assert sorted(words.criteria()) == CRITERIA.names()
    assert sorted(words.strategies()) == STRATEGIES.names()
    assert next(iter(words.criteria())) == "copal"


def test_uploads_have_generated_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_RUNS", str(tmp_path))
    first = uploads.keep("../../etc/Pass wd.TXT", b"text")
    assert first.parent == tmp_path / "uploads"
    assert first == uploads.keep("pass-wd.txt", b"text")
    first.write_bytes(b"another text whose name begins with the same digits")
    second = uploads.keep("pass-wd.txt", b"text")
    assert (
        second != first
        and second.read_bytes() == b"text" == uploads.keep("pass-wd.txt", b"text").read_bytes()
    )
    with pytest.raises(DomainError, match="format"):
        uploads.keep("x.exe", b"text")
    with pytest.raises(DomainError, match="empty"):
        uploads.keep("x.txt", b"")


def test_columns_of_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,x\n")
    (tmp_path / "a.jsonl").write_text('{"body": "x", "n": 1}\n')
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00")
    assert uploads.columns_of(tmp_path / "a.csv") == ["id", "text"]
    assert uploads.columns_of(tmp_path / "a.jsonl") == ["body", "n"]
    with pytest.raises(DomainError, match="cannot be read"):
        uploads.columns_of(tmp_path / "bad.csv")


def test_worker_says_its_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["prepare", "/no/such/checkpoint"]) == 2
    assert '"error"' in capsys.readouterr().out


def _panel() -> None:
    """A page of one job, for AppTest, which runs this function's source by itself."""
    from pathlib import Path

    import streamlit as st

    from copal_core.errors import RunError
    from copal_core.store.folder import JobFolder
    from pages.shared import job_panel

    def resume() -> None:
        raise RunError("it cannot be resumed here")

    folder = Path(st.session_state["folder"])
    st.session_state["pages"] = st.session_state.get("pages", 0) + 1
    version = (folder / "version").read_text
    job_panel.show(
        JobFolder(folder, "this job"),
        "job",
        resume,
        details=lambda state: st.write(state.phase),
        version=version,
    )


def test_a_job_panel_follows_the_job_to_its_end(tmp_path: Path) -> None:
    job = JobFolder(tmp_path, "this job")
    (tmp_path / "version").write_text("1")
    job.set_state(RunState("running", progress=0.425, phase="halfway", seconds_left=90))
    with job.lock():
        app = AppTest.from_function(_panel, default_timeout=300)
        app.session_state["folder"] = str(tmp_path)
        app.run()
        assert not app.exception
        assert [bar.text for bar in app.get("progress")] == ["42 %: halfway"]
        assert [text.value for text in app.markdown] == ["halfway"]
        assert app.caption[0].value.startswith("About ")
        app.button(key="cancel-job").click().run()
        assert job.cancel_requested() and app.button(key="cancel-job").disabled
        drawn = app.session_state["pages"]
        (tmp_path / "version").write_text("2")
        app.run()
        assert app.session_state["pages"] == drawn + 2  # the page ran once more, for there was more to draw
    app.run()
    assert "The job is interrupted" in app.warning[0].value
    app.button(key="resume-job").click().run()
    assert [error.value for error in app.error] == ["it cannot be resumed here"]
    app.run()
    assert not app.error  # said once
    job.set_state(RunState("done", progress=1.0))
    app.run()
    assert not app.button and not app.warning
