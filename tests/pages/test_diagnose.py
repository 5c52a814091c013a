"""The Diagnose page, on a real run of a small random checkpoint."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.analysis.diagnosis import attribution_folder, attribution_job
from copal_core.analysis.diagnosis.attribution_folder import Attribution
from copal_core.analysis.diagnosis.pieces import MOST_CHARACTERS
from copal_core.errors import CopalError
from copal_core.store.records import PerplexityRecord, WarningRecord
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs
from pages.shared import tasks, worker

Opener = Callable[..., AppTest]
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> \u202eto left\u202c שלום 👩‍💻 **bold** $x^2$\n"
)


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def texts_of(app: AppTest) -> list[str]:
    """The page's blocks of coloured or written text; the app has HTML of its own besides."""
    return [one.proto.body for one in app.get("html") if 'role="group"' in one.proto.body]


def html_of(app: AppTest) -> str:
    return "\n".join(texts_of(app))


@pytest.fixture
def run(finished: Callable[[str, str], RunStore], runs_folder: Path) -> str:
    """A finished run of every mask method over three domains, in the folder of this test."""
    store = finished("unstructured", "pruned")
    shutil.copytree(store.folder, runs_folder / store.id)
    return store.id


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Workers' tasks are answered in this process, before the page goes on; returns what was asked."""
    done: dict[tuple[str, ...], SimpleNamespace] = {}
    asked: list[tuple[str, ...]] = []

    def start(*arguments: str) -> None:
        asked.append(arguments)
        finished, error, result = threading.Event(), None, None
        finished.set()
        try:
            result = worker.COMMANDS[arguments[0]](*arguments[1:])
        except CopalError as failure:
            error = failure
        done[arguments] = SimpleNamespace(finished=finished, error=error, result=result, label="", share=1.0)

    monkeypatch.setattr(tasks, "start", start)
    monkeypatch.setattr(tasks, "find", lambda *arguments: done.get(arguments))
    return asked


def compare(app: AppTest) -> AppTest:
    return app.button(key="compare-text").click().run()


def test_a_domains_window_through_three_models(
    open_page: Opener, run: str, at_once: list[tuple[str, ...]]
) -> None:
    app = open_page(
        "diagnose", run=run, method="wanda:restart", step="1", other_method="copal:accumulate", other_step="3"
    )
    assert not app.exception and not app.error
    app = compare(app)
    assert not app.exception and not app.error
    assert [metric.label for metric in app.metric] == ["Dense model", "First result", "Second result"]
    assert "Protocol: " in text_of(app) and "24 tokens in one window, 23 predicted" in text_of(app)
    assert html_of(app).count("nats\nwanda:restart after 1. code.txt: ") == 2 * 23
    assert app.table[0].value.shape[1] == 6
    app.button(key="continue-text").click().run()
    assert "exceed the context of 64" in text_of(app)
    app.number_input(key="diagnose-new").set_value(16).run()
    app.button(key="continue-text").click().run()
    assert not app.exception and not app.error
    assert len(texts_of(app)) == 2 + 3
    assert [question for question, *_ in at_once] == ["losses", "continue", "continue"]


def test_hostile_text_is_shown_and_never_read(
    open_page: Opener, run: str, at_once: list[tuple[str, ...]]
) -> None:
    app = open_page("diagnose", run=run, text="typed")
    assert "Give the models a sentence" in text_of(app)
    app.text_area(key="diagnose-typed").set_value(HOSTILE).run()
    app = compare(app)
    assert not app.exception and not app.error
    shown = html_of(app)
    assert "<script" not in shown and "<img" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in re.sub("<[^>]*>", "", shown)
    assert "\u202e" not in shown and "[U+202E]" in shown
    assert "ש" in shown
    for table in app.table:
        assert not [cell for cell in table.value.to_numpy().ravel() if "**" in str(cell).replace("\\*", "")]


def test_a_very_long_paste_is_cut_before_it_is_read(
    open_page: Opener, run: str, at_once: list[tuple[str, ...]]
) -> None:
    app = open_page("diagnose", run=run, text="typed")
    long = "many words " * 950_000  # ten megabytes
    app.text_area(key="diagnose-typed").set_value(long).run()
    assert not app.exception
    assert len(app.session_state["diagnose-typed"]) == MOST_CHARACTERS
    assert f"{len(long):,} characters were given" in text_of(app)
    app = compare(app)
    assert not app.exception and not app.error
    assert "its first 2,000 tokens are compared" in text_of(app)
    assert len(at_once[-1][1]) < 200_000
    app.text_area(key="diagnose-typed").set_value("short again, but long enough").run()
    assert "characters were given" not in text_of(app)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("a", ["the text has 1 token; at least 2 are needed to predict one"], ""),
        ("\x00\x01", [], "1 predicted"),
    ],
)
def test_too_little_text_is_one_sentence(
    text: str, error: list[str], said: str, open_page: Opener, run: str, at_once: list[tuple[str, ...]]
) -> None:
    app = open_page("diagnose", run=run, text="typed")
    app.text_area(key="diagnose-typed").set_value(text).run()
    app = compare(app)
    assert not app.exception
    assert [one.value for one in app.error] == error and said in text_of(app)


def test_no_text_is_asked_for(open_page: Opener, run: str) -> None:
    app = open_page("diagnose", run=run, text="typed")
    app.text_area(key="diagnose-typed").set_value(" ").run()
    assert not app.exception and not app.error
    assert "Give the models a sentence" in text_of(app)
    assert "compare-text" not in {button.key for button in app.button}


def test_results_of_two_runs_of_one_checkpoint(
    open_page: Opener, run: str, runs_folder: Path, at_once: list[tuple[str, ...]]
) -> None:
    shutil.copytree(runs_folder / run, runs_folder / "another-run")
    app = open_page(
        "diagnose", run=run, other_run="another-run", other_method="magnitude:joint", other_step="2"
    )
    app = compare(app)
    assert not app.exception and not app.error
    assert app.selectbox(key="linked-other_run").value == "another-run"
    assert "magnitude:joint after 2. drama.txt" in text_of(app)


def test_a_run_without_masks_says_so_and_offers_to_compute_it(
    open_page: Opener, finished_run: str, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = runs_folder.parent / "recorded" / "recorded-run"
    shutil.copytree(runs_folder / finished_run, recorded)
    started: list[RunStore] = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    for view in ("text", "attribution"):
        app = open_page("diagnose", run="recorded-run", view=view)
        assert not app.exception
        assert "This run keeps no masks" in text_of(app)
    app.button(key="run-again").click().run()
    assert not app.exception
    assert started[0].config == Runs().open("recorded-run").config
    assert app.query_params["run"] == started[0].id


def test_attribution_is_started_watched_and_drawn(
    open_page: Opener, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Attribution] = []
    monkeypatch.setattr(attribution_folder, "start", started.append)
    app = open_page("diagnose", run=run, view="attribution", method="wanda:restart", domain="1")
    assert not app.exception and not app.error
    app.button(key="start-attribution").click().run()
    (attribution,) = started
    assert (attribution.request.method, attribution.request.domain) == ("wanda:restart", 1)
    attribution.folder.mkdir(parents=True)
    attribution.set_state(RunState(status="running", progress=0.3, phase="first ranking, on one window"))
    with attribution.lock():
        app.run()
        assert not app.exception
        app.button(key="cancel-attribution").click().run()
        assert attribution.cancel_requested()
    app.run()
    assert "interrupted" in text_of(app)
    attribution.clear_cancel()
    attribution_job.compute(attribution)
    app.run()
    assert not app.exception and not app.error
    assert len(app.get("plotly_chart")) == 1
    assert "nats a token" in text_of(app) and "Protocol: " in text_of(app)


def test_every_choice_of_parts_opens(open_page: Opener, run: str) -> None:
    for kind in ("block", "projection", "layer", "nonsense"):
        app = open_page("diagnose", run=run, view="attribution", by=kind, domain="2")
        assert not app.exception and not app.error


def test_one_domain_has_nothing_to_forget(
    open_page: Opener, runs_folder: Path, small_config: Callable[..., object]
) -> None:
    store = Runs(runs_folder).create(small_config(["magnitude:restart"], domains=1))  # type: ignore[arg-type]
    assert "Needs two domains" in text_of(open_page("diagnose", run=store.id, view="attribution"))
    assert "Nothing to check yet" in text_of(open_page("diagnose", run=store.id, view="health"))


def test_health_lists_findings_with_place_and_advice(
    open_page: Opener, runs_folder: Path, synthetic: ModuleType
) -> None:
    store = synthetic.write_run(runs_folder, run_id="unwell-run")
    store.add(
        [
            WarningRecord("wanda:restart", 2, 1, "q_proj", "empty-rows", "3 rows lost every weight; compare"),
            WarningRecord(
                "sparsegpt:sequential", 1, 2, "up_proj", "dead-inputs", "2 inputs were never active"
            ),
            PerplexityRecord("magnitude:joint", 3, "shakespeare", float("inf"), float("inf"), 252, 2),
        ]
    )
    app = open_page("diagnose", run=store.id, view="health")
    assert not app.exception
    cells = "\n".join(str(cell) for table in app.table for cell in table.value.to_numpy().ravel()).replace(
        "\\", ""
    )
    assert "wanda:restart after 2. python-manual: block 1" in cells
    assert "2 evaluation windows gave NaN or infinity" in cells
    assert "2 inputs were never active" in cells
    assert "damping raised to 10 %" in cells
    assert "Found nothing" in text_of(app)


def test_a_healthy_run_names_the_checks(open_page: Opener, run: str) -> None:
    text = text_of(open_page("diagnose", run=run, view="health"))
    assert "Rows pruned to nothing" in text and "Dead inputs" in text


# -- one weight ----------------------------------------------------------------------------------------


def test_one_weight_from_the_layer_to_its_decision(
    open_page: Opener, run: str, at_once: list[tuple[str, ...]]
) -> None:
    app = open_page(
        "diagnose", run=run, view="weight", layer="1", projection="up_proj", method="wanda:restart", step="2",
        row="5", column="7",
    )  # fmt: skip
    assert not app.exception and not app.error
    assert len(app.get("plotly_chart")) == 1  # the layer's map is there before anything is computed
    app.button(key="read-layer").click().run()
    assert not app.exception and not app.error
    text = text_of(app)
    assert "Output 5, input 7 of block 1 up_proj" in text.replace("*", "") or any(
        "Output 5, input 7" in one.value for one in app.subheader
    )
    assert len(app.get("plotly_chart")) == 3  # the map, the weights around it, the margins
    story, moments = app.table[0].value, app.table[-1].value
    assert story.shape[1] == 4 and len(story) == 16
    assert 0 < len(moments) <= 10
    app.button(key="replay-decision").click().run()
    assert not app.exception and not app.error
    kept = bool(Runs().open(run).masks("wanda:restart", 2, 1)["up_proj"][5, 7])
    assert f"It was **{'kept' if kept else 'removed'}**" in text_of(app)
    assert "same mask as the run in 100 %" in text_of(app)
    app.number_input(key="linked-row").set_value(6).run()
    assert app.query_params["row"] == "6"
    assert not app.exception and not app.error
    assert [question for question, *_ in at_once] == ["layer", "decision"]


@pytest.mark.parametrize("row, column", [("-1", "9999999999"), ("1e3", "<b>"), ("\u0663", "nan")])
def test_a_weight_that_does_not_exist_is_the_middle_one(
    open_page: Opener, run: str, row: str, column: str
) -> None:
    app = open_page("diagnose", run=run, view="weight", projection="q_proj", row=row, column=column)
    assert not app.exception and not app.error
    assert app.number_input(key="linked-column").value == 16


def test_a_layer_that_cannot_be_read_is_one_sentence(
    open_page: Opener, finished_run: str, at_once: list[tuple[str, ...]]
) -> None:
    """The made-up run has another shape than its checkpoint, and kept no windows."""
    app = open_page("diagnose", run=finished_run, view="weight", layer="1")
    assert not app.exception
    app.button(key="read-layer").click().run()
    assert not app.exception
    assert len(app.error) == 1 and "not what run" in app.error[0].value.replace("\\", "")
