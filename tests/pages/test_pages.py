"""Every page, through the app: finished run, no run, hostile links, damaged and unfinished runs."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.config import Protocol, RunConfig, Structure, Windows
from copal_core.errors import Cancelled
from copal_core.experiment import loop
from copal_core.figures import panels
from copal_core.store.runs import Runs
from pages.shared.text import plain
from tests.pages.conftest import PAGES

Opener = Callable[..., AppTest]
OF_A_RUN = ("prune", "sensitivity", "stasis", "neurons", "diagnose", "report")
RESULT_PAGES = ("sensitivity", "stasis", "neurons")


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.text]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def figures(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


def test_every_file_of_pages_is_one_the_app_leads_to() -> None:
    files = {path.parent.name for path in (Path(__file__).resolve().parents[2] / "pages").glob("*/page.py")}
    assert set(PAGES) == files - {"__init__"} and len(PAGES) == len(set(PAGES)) > 12


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_with_a_finished_run(page: str, open_page: Opener, finished_run: str) -> None:
    app = open_page(page, run=finished_run)
    assert not app.exception
    assert len(app.title) == 1
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_without_any_run(page: str, open_page: Opener) -> None:
    app = open_page(page)
    assert not app.exception
    if page in RESULT_PAGES:
        assert "No runs yet" in text_of(app)
        assert not figures(app)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "run", ["../../etc/passwd", "no-such-run", "<script>alert(1)</script>", "x" * 5000, "![a](http://b)"]
)
def test_hostile_run_is_one_sentence(page: str, run: str, open_page: Opener, finished_run: str) -> None:
    app = open_page(page, run=run)
    assert not app.exception
    if page in OF_A_RUN:
        assert len(app.error) == 1
        assert "](http" not in app.error[0].value  # a link's text is not read as Markdown
        assert not figures(app)


@pytest.mark.parametrize("page", PAGES)
def test_hostile_parameters_are_ignored(page: str, open_page: Opener, finished_run: str) -> None:
    hostile = {
        "layer": "-1", "projection": "<b>", "step": "99999999999999999999", "method": "copal:accumulate'--",
        "metric": "__class__", "view": "../..", "map": "[]", "other_method": "%00", "other_step": "nan",
        "checkpoint": "/etc", "unheard": "of",
    }  # fmt: skip
    app = open_page(page, run=finished_run, **hostile)
    assert not app.exception
    assert not app.error


def test_sensitivity_shows_the_map_and_the_cell(open_page: Opener, finished_run: str) -> None:
    app = open_page("sensitivity", run=finished_run, layer="2", projection="q_proj")
    assert app.selectbox(key="linked-layer").value == 2
    assert app.selectbox(key="linked-projection").value == "q_proj"
    assert figures(app) == 3  # map, weight map, scores
    app.selectbox(key="linked-projection").set_value("down_proj").run()
    assert app.query_params["projection"] == "down_proj"
    assert figures(app) == 3
    for metric in ("domain", "kept", "threshold"):
        app.selectbox(key="linked-metric").set_value(metric).run()
        assert not app.exception


def test_rows_and_heads_are_drawn_when_unfolded(open_page: Opener, finished_run: str) -> None:
    for projection, drawn in (("q_proj", 5), ("down_proj", 4)):  # an MLP layer has no heads
        app = open_page("sensitivity", run=finished_run, layer="2", projection=projection)
        app.session_state[f"rows-and-heads-copal-accumulate-step1-block2-{projection}"] = True
        app.run()
        assert not app.exception
        assert figures(app) == drawn


def test_sensitivity_compares_two_maps(open_page: Opener, finished_run: str) -> None:
    app = open_page(
        "sensitivity", run=finished_run, view="compare", other_method="wanda:restart", other_step="3"
    )
    assert not app.exception
    assert app.selectbox(key="linked-other_method").value == "wanda:restart"
    assert figures(app) == 3 + 2 * 2  # two maps and their difference; two cells of two figures


@pytest.mark.parametrize(("step", "before"), [("3", 2), ("2", 1), ("1", 2), ("", 2)])
def test_a_comparison_begins_with_two_steps_that_differ(
    step: str, before: int, open_page: Opener, finished_run: str
) -> None:
    app = open_page("sensitivity", run=finished_run, view="compare", step=step)
    assert not app.exception
    chosen = app.selectbox(key="linked-other_step").value, app.selectbox(key="linked-step").value
    assert chosen == (before, int(step or 3))
    assert figures(app) == 3 + 2 * 2


def test_two_equal_sides_are_one_sentence(open_page: Opener, finished_run: str) -> None:
    app = open_page("sensitivity", run=finished_run, view="compare", step="3", other_step="3")
    assert not app.exception
    assert "Both sides are the same" in text_of(app)
    assert figures(app) == 3  # one map, one cell of two figures
    app.selectbox(key="linked-other_step").set_value(1).run()
    assert "Both sides are the same" not in text_of(app) and figures(app) == 3 + 2 * 2


def test_after_one_step_methods_are_compared_and_one_method_waits(
    runs_folder: Path, synthetic: ModuleType, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = synthetic.write_run(runs_folder, run_id="first-step", steps=1).id
    app = open_page("sensitivity", run=several, view="compare")
    assert app.selectbox(key="linked-step").value == app.selectbox(key="linked-other_step").value == 1
    assert app.selectbox(key="linked-method").value != app.selectbox(key="linked-other_method").value
    assert figures(app) == 3 + 2 * 2
    monkeypatch.setattr(synthetic, "METHODS", synthetic.METHODS[:1])
    alone = synthetic.write_run(runs_folder, run_id="one-method", steps=1).id
    app = open_page("sensitivity", run=alone, view="compare")
    assert not app.exception
    assert "Nothing to compare yet" in text_of(app) and figures(app) == 3


def test_every_figure_has_its_table(open_page: Opener, finished_run: str) -> None:
    for page, view in (
        ("sensitivity", "compare"),
        ("stasis", "forgetting"),
        ("stasis", "matrix"),
        ("stasis", "stasis"),
        ("stasis", "overlap"),
    ):
        app = open_page(page, run=finished_run, view=view)
        assert figures(app) > 0
        folded = [one for one in app.expander if one.label == "Table and download"]
        assert len(folded) == figures(app)
        for one in folded:
            app.session_state[one.key] = True
        app.run()
        assert not app.exception
        assert len(app.dataframe) >= figures(app)
        assert len(app.get("download_button")) == figures(app)


def test_forgetting_says_which_method_is_best(open_page: Opener, finished_run: str) -> None:
    app = open_page("stasis", run=finished_run)
    text = text_of(app)
    assert "**copal:accumulate** has the lowest average perplexity" in text
    assert text.count("Protocol: tiny") == 2  # beside each group of perplexities
    assert "ower is better" in text


def test_the_lowest_backward_transfer_stands_out_also_below_zero(
    runs_folder: Path, synthetic: ModuleType, open_page: Opener
) -> None:
    store = synthetic.write_run(runs_folder)
    with sqlite3.connect(
        store.folder / "results.sqlite"
    ) as records:  # earlier domains end far below where they began
        records.execute(
            "UPDATE perplexity SET perplexity = 4 WHERE method = 'wanda:restart' AND step = 3 AND domain != ?",
            (synthetic.DOMAINS[-1],),
        )
    app = open_page("stasis", run=store.id)
    assert not app.exception
    shown = next(metric for metric in app.metric if metric.label == "Lowest backward transfer")
    assert shown.value[0] in "-−" and shown.delta == "wanda:restart"
    assert "|BWT|" not in " ".join(metric.label for metric in app.metric)


def test_overlap_and_stasis_views(open_page: Opener, finished_run: str) -> None:
    app = open_page("stasis", run=finished_run, view="stasis")
    assert figures(app) == 3
    app = open_page("stasis", run=finished_run, view="overlap", step="2", projection="q_proj")
    assert figures(app) == 1
    assert "0.33" in text_of(app)  # two independent masks of one half


def test_the_page_draws_the_panels_of_the_report(finished_run: str, open_page: Opener) -> None:
    titles = set()
    for view in ("forgetting", "matrix", "stasis", "overlap"):
        app = open_page("stasis", run=finished_run, view=view)
        titles |= {markdown.value for markdown in app.markdown}
    wanted = [
        panel for panel in panels.of_run(Runs().open(finished_run)) if not panel.name.startswith("layers")
    ]
    assert len(wanted) > 6
    assert {f"**{plain(panel.title)}**" for panel in wanted} <= titles


def test_unfinished_run_shows_what_there_is(
    runs_folder: Path, synthetic: ModuleType, open_page: Opener
) -> None:
    run = synthetic.write_run(runs_folder, run_id="unfinished-run", status="cancelled", steps=1).id
    for page in RESULT_PAGES:
        for view in ("", "stasis", "overlap", "compare"):
            app = open_page(page, run=run, view=view, step="3", other_step="2")
            assert not app.exception
            assert "cancelled" in text_of(app)
    app = open_page("prune", run=run)
    assert not app.exception
    assert app.button(key="resume-run")


def test_damaged_records_are_one_sentence(runs_folder: Path, finished_run: str, open_page: Opener) -> None:
    (runs_folder / finished_run / "results.sqlite").write_bytes(b"not a database" * 100)
    for page in RESULT_PAGES:
        app = open_page(page, run=finished_run)
        assert not app.exception
        assert "damaged" in text_of(app)


def test_link_survives_a_change_of_page(open_page: Opener, finished_run: str) -> None:
    app = open_page("sensitivity", run=finished_run, layer="1", method="wanda:restart")
    app.query_params.clear()  # what navigation does
    app.switch_page("pages/stasis/page.py").run()
    assert app.query_params["run"] == finished_run
    assert app.query_params["method"] == "wanda:restart"


def test_domains_are_reordered_removed_and_added(open_page: Opener) -> None:
    app = open_page("domains")
    order = app.session_state["draft"]["domains"]
    assert order == ["python-code", "python-manual", "shakespeare"]
    app.button(key="down-0").click().run()
    assert app.session_state["draft"]["domains"] == ["python-manual", "python-code", "shakespeare"]
    app.button(key="remove-2").click().run()
    assert app.session_state["draft"]["domains"] == ["python-manual", "python-code"]
    app.button(key="add-licences").click().run()
    assert app.session_state["draft"]["domains"][-1] == "licences"
    for _ in range(3):
        app.button(key="remove-0").click().run()
    assert not app.exception
    assert "No domains yet" in text_of(app)


def test_upload_is_kept_under_a_generated_name(runs_folder: Path, open_page: Opener) -> None:
    app = open_page("domains")
    app.session_state["draft"]["domain_source"] = "file"
    app.run()
    text = "A line of text that is long enough to be a document.\n" * 50
    app.file_uploader(key="upload").set_value(("../<b>My notes</b>.txt", text.encode(), "text/plain")).run()
    assert not app.exception
    app.button(key="add-file").click().run()
    assert not app.error
    kept = list((runs_folder / "uploads").iterdir())
    assert len(kept) == 1
    assert re.fullmatch(r"b-[0-9a-f]{8}\.txt", kept[0].name)
    assert app.session_state["draft"]["domains"][-1] == str(kept[0])


def test_upload_of_a_table_asks_for_the_column(open_page: Opener) -> None:
    app = open_page("domains")
    app.session_state["draft"]["domain_source"] = "file"
    app.run()
    rows = "id,body\n" + "".join(f"{index},A sentence in a table number {index}\n" for index in range(40))
    app.file_uploader(key="upload").set_value(("table.csv", rows.encode(), "text/csv")).run()
    app.selectbox(key="upload-column").set_value("body").run()
    app.button(key="add-file").click().run()
    assert not app.error
    assert app.session_state["draft"]["domains"][-1].endswith("#body")


@pytest.mark.parametrize(
    ("name", "content", "offered"),
    [("empty.txt", b"", False), ("binary.txt", b"\x00\xff" * 500, True), ("bad.jsonl", b"{nonsense", False)],
)
def test_useless_upload_is_one_sentence(name: str, content: bytes, offered: bool, open_page: Opener) -> None:
    app = open_page("domains")
    app.session_state["draft"]["domain_source"] = "file"
    app.run()
    app.file_uploader(key="upload").set_value((name, content, "text/plain")).run()
    assert ("add-file" in {button.key for button in app.button}) == offered
    if offered:  # its text is read when it is added
        app.button(key="add-file").click().run()
    assert not app.exception
    assert len(app.error) == 1
    assert len(app.session_state["draft"]["domains"]) == 3


def test_prune_says_what_is_missing(open_page: Opener) -> None:
    app = open_page("prune")
    app.session_state["draft"]["checkpoint"] = "tiny"
    app.session_state["draft"]["strategies"] = {}
    app.run()
    assert "no method is chosen" in text_of(app)
    app.session_state["draft"]["domains"] = []
    app.run()
    assert "no domain" in text_of(app)
    assert not app.exception


def test_prune_presets_fields_and_command_line(open_page: Opener) -> None:
    app = open_page("prune")
    app.session_state["draft"]["checkpoint"] = "tiny"
    app.run()
    assert not app.exception
    app.number_input(key="draft-calibration_count").set_value(3).run()
    assert app.session_state["draft"]["preset"] == "Custom"
    command = next(code.value for code in app.code if "copal_core run" in code.value)
    assert "--checkpoint tiny" in command
    assert "--calibration 3x" in command
    assert "--method copal:accumulate" in command


def test_a_reopened_run_fills_in_its_own_settings(runs_folder: Path, open_page: Opener) -> None:
    config = RunConfig(
        checkpoint="/models/other",
        domains=("licences", "python-code"),
        methods=("sparsegpt:sequential", "copal[epsilon=0.02,estimator=autograd]:joint", "plrd:restart"),
        structure=Structure.parse("3:8"),
        protocol=Protocol(
            calibration=Windows(count=5, length=96), evaluation=Windows(count=7, length=80), seed=9
        ),
    )
    first = Runs(runs_folder).create(config)
    second = Runs(runs_folder).create(
        config.model_copy(update={"checkpoint": "tiny", "domains": ("shakespeare",)})
    )
    app = open_page("prune", run=first.id)
    assert not app.exception
    assert app.session_state["draft"]["preset"] == "Custom"
    assert "other settings" not in text_of(app) and "nearest" not in text_of(app)
    # another run that is opened takes its place; a draft that somebody has changed stays, and the run's are offered
    app.query_params["run"] = second.id
    app.run()
    assert app.session_state["draft"]["checkpoint"] == "tiny"
    app.number_input(key="draft-calibration_count").set_value(3).run()
    app.query_params["run"] = first.id
    app.run()
    assert app.session_state["draft"]["checkpoint"] == "tiny" and "other settings" in text_of(app)
    app.button(key="take-settings").click().run()
    assert app.session_state["draft"]["checkpoint"] == "/models/other" and "other settings" not in text_of(
        app
    )


def test_settings_that_the_form_does_not_have_are_said(runs_folder: Path, open_page: Opener) -> None:
    methods = ("mutual-information[share=0.1]:joint", "mutual-information[share=0.3]:joint")
    store = Runs(runs_folder).create(RunConfig(checkpoint="tiny", domains=("shakespeare",), methods=methods))
    app = open_page("prune", run=store.id)
    assert not app.exception and "shows the nearest ones" in text_of(app)


def test_a_cancelled_run_says_once_what_is_kept(
    runs_folder: Path, synthetic: ModuleType, open_page: Opener
) -> None:
    store = synthetic.write_run(runs_folder, run_id="cancelled-run", steps=1)
    with pytest.raises(Cancelled):
        loop.run(store, should_stop=lambda: True)
    for page in ("prune", "runs", "stasis"):
        text = text_of(open_page(page, run=store.id)).lower()
        assert text.count("what was finished is kept") == 1 and "cancelled: cancelled" not in text
        assert text.count("resume goes on") + text.count("resuming goes on") == 1


def test_prune_starts_a_run(runs_folder: Path, open_page: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = open_page("prune")
    app.session_state["draft"]["checkpoint"] = "tiny"
    app.run()
    app.button(key="start-run").click().run()
    assert not app.exception
    assert len(started) == 1
    assert app.query_params["run"] == started[0].id
    assert started[0].config.methods[0].name == "copal"


def test_prune_refuses_windows_that_a_file_cannot_hold(
    runs_folder: Path, tmp_path: Path, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    (tmp_path / "short.txt").write_text("a short text\n" * 20)
    app = open_page("prune")
    app.session_state["draft"].update(checkpoint="tiny", domains=[str(tmp_path / "short.txt")])
    app.run()
    app.button(key="start-run").click().run()
    assert not app.exception and "holds 260 bytes of text" in app.error[0].value.replace("\\", "")
    assert not started and not list(runs_folder.glob("*/run.json"))


def test_prune_watches_a_run_at_work(runs_folder: Path, synthetic: ModuleType, open_page: Opener) -> None:
    store = synthetic.write_run(runs_folder, run_id="working-run", status="running", steps=2)
    with store.lock():
        app = open_page("prune", run=store.id)
        assert not app.exception
        assert "copal:accumulate after 2. python-manual: 3 of 3 blocks" in text_of(app)
        app.button(key="cancel-run").click().run()
        assert store.cancel_requested()
        assert not app.exception


def test_checkpoint_describes_before_loading(open_page: Opener) -> None:
    app = open_page("checkpoint", checkpoint="tiny")
    assert not app.exception
    assert {metric.label for metric in app.metric} >= {"Parameters", "Decoder blocks", "Context"}
    assert "key-value heads" in text_of(app)
    assert figures(app) == 1


@pytest.mark.parametrize("name", ["/no/such/folder", "<script>", "../..", "a\x00b"])
def test_bad_checkpoint_is_one_sentence(name: str, open_page: Opener) -> None:
    app = open_page("checkpoint")
    app.session_state["draft"].update(source="local", local_name=name)
    app.run()
    assert not app.exception
    assert len(app.error) == 1


def test_pages_do_not_import_torch() -> None:
    """In a process of its own, as this one may have imported torch in another test."""
    import subprocess

    script = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('app.py', default_timeout=300).run()\n"
        "for page in ('domains', 'prune', 'sensitivity', 'stasis', 'families', 'diagnose', 'sweep'):\n"
        "    app.switch_page(f'pages/{page}/page.py').run()\n"
        "    assert not app.exception\n"
        "found = {'torch', 'transformers', 'datasets'} & set(sys.modules)\nassert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
