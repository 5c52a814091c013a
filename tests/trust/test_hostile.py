"""A thousand hostile uploads, names and query strings: a sentence or nothing, and never a file elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copal_core.checkpoints import locate
from copal_core.config import Method, RunConfig, Structure, Windows
from copal_core.domains import Document, Domain, find
from copal_core.errors import CopalError
from copal_core.store.groups import Groups
from copal_core.store.runs import Runs
from copal_core.store.shelf import restore
from pages.domains import uploads
from pages.shared import links
from pages.shared.text import plain

NASTY = (
    "../../etc/passwd", "..", ".", "/etc/passwd", "~root/x", "a\0b", "<script>alert(1)</script>", "x'; DROP TABLE x;--",
    "%2e%2e%2f", "con", "nul.txt", "run\n", "x" * 10_000, "\u202etxt.exe", "\ud800", "🦙" * 100, "file:///etc/passwd",
    "hub:../../x", "hub:a/b#c", "NaN", "inf", "-1", "1e309", "\\\\host\\share", "a/../../b", "$(id)", "${IFS}", "{0}",
    "%s", "-rf", "hub:wikitext-2", "{run}", "[x](javascript:alert(1))", "<img src=x onerror=alert(1)>", ":material/x:",
)  # fmt: skip
FILES = (
    b"PAR1", b"PAR1" + bytes(64) + b"PAR1", b"\x80\x04cos\nsystem\n(S'id'\ntR.", b'{"text": ' + b"[" * 5000,
    b'{"text": "' + b"9" * 5000 + b'"}', b'{"text": ' + b"9" * 5000 + b"}", b'"unclosed,csv\n1', b"\xff\xfe\x00",
    b"a,a,a\n1,2\n1,2,3,4\n", b"text\n" + b'"' * 999, b"[]\n{}\n", b'{"":null}\n', b"\n\n\n", b"\x1f\x8b\x08",
    b"PK\x03\x04", b"text\n\0\n", b"\xef\xbb\xbftext\nx\n", b"text;b\n1;2;3\n", b"\r\r\r", b"text\n" + b"x," * 3000,
)  # fmt: skip
text = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=80), st.text(alphabet="./\\~\0#:@%<>&\n ", max_size=20)
)
name = st.builds(
    lambda stem, suffix: stem + suffix,
    text,
    st.sampled_from(["", ".txt", ".MD", ".jsonl", ".csv", ".parquet", ".pt", ".html"]),
)
content = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda found: found.encode("utf-8", "replace")),
    st.sampled_from(FILES),
)
bulk = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """A folder in a folder; fenced() -> what was made outside of the runs folder."""
    runs = tmp_path / "fence" / "runs"
    runs.mkdir(parents=True)
    monkeypatch.setenv("COPAL_RUNS", str(runs))
    monkeypatch.setenv("COPAL_CACHE", str(runs / "cache"))
    monkeypatch.chdir(runs)
    return lambda: [path for path in tmp_path.rglob("*") if not path.is_relative_to(runs) and path.is_file()]


def only_sentences(action: Callable[..., Any], *arguments: Any) -> Any:
    """What the action returns; None where it refused in words. Anything else it raises fails the test."""
    try:
        return action(*arguments)
    except CopalError as error:
        if not str(error):
            raise AssertionError("an error without words") from error
        return None


def read(domain: Domain) -> list[Document]:
    return list(domain.documents())


@bulk
@given(name, content)
def test_hostile_uploads(fenced: Callable[[], list[Path]], given_name: str, given_content: bytes) -> None:
    kept = only_sentences(uploads.keep, given_name, given_content)
    if kept is not None:
        assert kept.parent == uploads.folder() and kept.resolve().parent == uploads.folder().resolve()
        assert kept.read_bytes() == given_content
        columns = only_sentences(uploads.columns_of, kept) if kept.suffix in uploads._TABLES else [""]
        for column in (columns or [])[:2]:
            domain = only_sentences(find, f"{kept}#{column}" if column else str(kept))
            if domain is not None:
                only_sentences(read, domain)
    assert not fenced()


@bulk
@given(text)
def test_hostile_names(fenced: Callable[[], list[Path]], given_text: str) -> None:
    runs = Runs()
    assert only_sentences(runs.open, given_text) is None
    assert only_sentences(Groups().open, given_text) is None
    assert only_sentences(restore, runs.root, given_text) is None
    config = RunConfig(checkpoint="tiny", domains=("python-code",), methods=("copal:accumulate",))
    store = only_sentences(lambda: runs.create(config, title=given_text, run_id=given_text))
    if store is not None:
        assert store.folder.resolve().parent == runs.root.resolve()
    for parse in (Method.parse, Windows.parse, Structure.parse, find):
        only_sentences(parse, given_text)
    if "/" not in given_text or given_text.startswith(("/", ".", "~")):  # else a hub id: the network
        only_sentences(locate, given_text)
    shown = plain(given_text)
    assert "\n" not in shown and "<" not in shown.replace("\\<", "")
    assert not fenced()


@pytest.mark.parametrize(
    "method", ["copal:accumulate", "copal[estimator=..]:restart", "wanda[x=../../y]:joint"]
)
def test_a_methods_folder_stays_in_the_run(runs: Runs, method: str) -> None:
    config = RunConfig(checkpoint="tiny", domains=("python-code",), methods=(Method.parse(method),))
    store = runs.create(config)
    path = store.block_path("masks", method, 1, 0)
    assert path.resolve().relative_to(store.folder.resolve() / "masks").parts[0] not in ("..", ".")
    assert len(path.relative_to(store.folder).parts) == 4


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_links(
    open_page: Callable, runs_folder: Path, synthetic: Any, all_pages: tuple[str, ...], data: st.DataObject
) -> None:
    """Every page, with any of its parameters set to anything."""
    if not (runs_folder / "synthetic-run").exists():
        synthetic.write_run(runs_folder)
    page = data.draw(st.sampled_from(all_pages))
    names = data.draw(st.lists(st.sampled_from(links.PARAMETERS), max_size=6, unique=True))
    parameters = {one: data.draw(text) for one in names}
    if data.draw(st.booleans()):
        parameters["run"] = "synthetic-run"
    app = open_page(page, **{one: value for one, value in parameters.items() if value.isprintable()})
    assert not app.exception, (page, parameters)
    assert len(Runs().list()) == 1
