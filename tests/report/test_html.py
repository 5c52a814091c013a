"""The HTML report: whole, escaped, small, and without a word to the network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from copal_core.analysis.results import result_of
from copal_core.cli.main import main
from copal_core.config import RunConfig
from copal_core.errors import RunError
from copal_core.export.report import write_report
from copal_core.figures import panels
from copal_core.store import shelf
from copal_core.store.run_store import RunStore
from copal_core.store.runs import RECORDED, Runs


class Reader(HTMLParser):
    """Elements with their attributes, the text outside scripts, and what each script holds."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", []
        self._in: str = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the recorded run: three domains, five methods, thirty blocks."""
    name = next(path.name for path in RECORDED.iterdir() if (path / "run.json").is_file())
    return write_report(Runs().open(name), tmp_path_factory.mktemp("report") / "report.html")


def test_three_domains_weigh_less_than_eight_megabytes(recorded: Path) -> None:
    assert 1e6 < recorded.stat().st_size < 8e6


def test_nothing_outside_the_file_is_asked_for(recorded: Path) -> None:
    reader = read(recorded)
    for tag, attributes in reader.elements:
        assert "src" not in attributes, tag
        if "href" in attributes:
            assert str(attributes["href"]).startswith(("#", "data:")), attributes
    policies = [a["content"] for t, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies and "default-src 'none'" in str(policies[0])
    styles = re.findall(r"<style>(.*?)</style>", recorded.read_text(encoding="utf-8"), re.DOTALL)
    assert styles and not re.search(r"url\(|@import", styles[0])


def test_every_figure_has_words_table_stamp_and_buttons(recorded: Path) -> None:
    reader = read(recorded)
    figures = json.loads(reader.scripts[0])
    assert len(figures) >= 12
    places = {str(a["id"]): a for t, a in reader.elements if a.get("class") == "plot"}
    assert set(places) == {f"plot-{name}" for name in figures}
    assert all(len(str(place["aria-label"])) > 30 for place in places.values())
    buttons = [a for t, a in reader.elements if t == "button"]
    assert {a["data-table"] for a in buttons if "data-table" in a} == set(figures)
    assert {a["data-format"] for a in buttons if a.get("data-image") == "average"} == {"png", "svg"}
    assert reader.text.count("Protocol: smollm2-135m") == len(figures) + 1
    assert all(figure["data"] and figure["csv"].count("\n") > 1 for figure in figures.values())
    assert "prefers-color-scheme: dark" in recorded.read_text(encoding="utf-8")


def test_the_figures_hold_the_runs_numbers(computed: RunStore) -> None:
    found = {panel.name: panel for panel in panels.of_run(computed)}
    for entry in result_of(computed)["methods"]:
        row = found["average"].table.set_index("method").loc[entry["method"]]
        assert row["average"] == pytest.approx(entry["average_perplexity"])
    assert {"transfer", "curve-1", "curve-2", "matrix-4", "stasis", "overlap"} <= set(found)


def test_what_people_type_is_text(
    runs: Runs, computed: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    info = {**computed.info, "title": f"T {hostile}", "note": f"N {hostile}"}
    info["domains"] = [{**domain, "name": f"D{n} {hostile}"} for n, domain in enumerate(info["domains"])]
    renamed = computed.perplexity()
    names = dict(zip(computed.domains, [domain["name"] for domain in info["domains"]], strict=True))
    renamed["domain"] = renamed["domain"].map(names)
    monkeypatch.setattr(RunStore, "info", property(lambda store: info))
    monkeypatch.setattr(RunStore, "perplexity", lambda store: renamed)
    reader = read(write_report(computed, tmp_path / "report.html"))
    assert len(reader.scripts) == 3
    assert not [tag for tag, _ in reader.elements if tag in ("img", "iframe", "object")]
    assert f"N {hostile}" in reader.text
    assert json.loads(reader.scripts[0])  # still whole
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)


def test_unfinished_and_empty_runs(
    runs: Runs, small_config: Callable[..., RunConfig], computed: RunStore, tmp_path: Path
) -> None:
    empty = runs.create(small_config(["wanda:restart"]))
    with pytest.raises(RunError, match="no perplexity yet"):
        write_report(empty, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    computed.records.copy_to(empty.folder / "results.sqlite")
    empty.records.delete_after(0)
    empty.describe(domains=computed.info["domains"])
    reader = read(write_report(empty, tmp_path / "report.html"))
    assert "what was finished is shown" in reader.text
    shelf.rename(empty, "x")


def test_the_command_writes_it(
    computed: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert (
        main(["report", computed.id, "--runs", str(computed.folder.parent), "--out", str(out), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["bytes"] == out.stat().st_size
    assert main(["report", computed.id, "--runs", str(computed.folder.parent), "--out", str(tmp_path)]) == 2
