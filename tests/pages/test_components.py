"""The parts of the pages that need no page."""

from __future__ import annotations

from pathlib import Path

import pytest

from copal_core.errors import DomainError
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
