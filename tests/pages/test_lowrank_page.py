"""Masks and low rank, and Families, through the app: a small checkpoint, real statistics, runs written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.store.records import FactorRecord, PerplexityRecord, Record, TrainingRecord
from copal_core.store.run_store import RunState
from copal_core.store.runs import Runs

Opener = Callable[..., AppTest]
DOMAINS = ("python-code", "shakespeare")
PROTOCOL = Protocol(calibration=Windows(count=4, length=32), evaluation=Windows(count=2, length=32))


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def rows_of(app: AppTest) -> list[str]:
    """The rows of the page's text tables, cells joined by a bar."""
    rows = [row for table in app.table for row in table.value.to_numpy().tolist()]
    return [" | ".join(map(str, row)).replace("\\", "") for row in rows]


def figures(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the statistics of `tiny`, gathered once for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPAL_CACHE", str(folder))
        from copal_core.checkpoints import locate
        from copal_core.statistics import prepared

        prepared.gather(locate("tiny"), DOMAINS, PROTOCOL, lambda label, done, total: None)
    return folder


@pytest.fixture
def small(open_page: Opener, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Open a page with two domains and a few short windows in the draft."""

    def open_(name: str, **parameters: str) -> AppTest:
        app = open_page("checkpoint")
        draft = app.session_state["draft"]
        draft.update(checkpoint="tiny", domains=list(DOMAINS), calibration_count=4, calibration_length=32)
        draft.update(evaluation_count=2, evaluation_length=32, preset="Custom")
        for key, value in parameters.items():
            app.query_params[key] = value
        app.default_timeout = 300
        return app.switch_page(f"pages/{name}/page.py").run()

    return open_


def test_first_visit_says_what_will_happen_and_how_long(small: Opener) -> None:
    app = small("lowrank")
    assert not app.exception and not app.error
    assert app.selectbox(key="linked-model").value == "tiny"
    assert "have not been read yet" in text_of(app)
    assert "This takes about" in text_of(app)
    assert not figures(app)


def test_a_layer_answers_the_slider(
    small: Opener, gathered: Path, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_CACHE", str(gathered))
    app = small("lowrank", layer="1", projection="q_proj", kept="50")
    assert not app.exception
    text = text_of(app)
    for method in ("copal", "wanda", "sparsegpt", "magnitude", "svd", "whitened-svd", "basel"):
        assert any(row.startswith(f"{method} |") for row in rows_of(app))
    assert "the best mask" in text and any("svd | rank 64 |" in row for row in rows_of(app))
    assert not any("2:4" in row for row in rows_of(app))  # it takes 56.25 % of the bytes
    assert figures(app) == 2 + 3  # a domain each; the weight, a mask and a decomposition
    app.slider(key="linked-kept").set_value(80.0).run()
    assert app.query_params["kept"] == "80"
    assert any(row.startswith("copal 2:4 |") for row in rows_of(app))
    assert any("svd | rank 102 |" in row for row in rows_of(app))
    for view, count in (("spectra", 3), ("subspaces", 4)):
        app.segmented_control(key="linked-close").set_value(view).run()
        assert not app.exception
        assert figures(app) == count
    app.slider(key="linked-kept").set_value(100.0).run()
    assert not app.exception
    assert "Nothing is removed and nothing is lost" in text_of(app)
    app.selectbox(key="linked-fit").set_value("shakespeare").run()
    assert app.query_params["fit"] == "shakespeare"


def test_hostile_parameters_are_ignored(
    small: Opener, gathered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_CACHE", str(gathered))
    app = small("lowrank", kept="nan", layer="-3", projection="<b>", model="../..", fit="%00", close="[]")
    assert not app.exception
    assert "Output lost at 56.25 % of the bytes" in text_of(app)
    app = small("families", run="../../etc/passwd", member="<script>")
    assert not app.exception
    assert len(app.error) == 1


def test_a_link_brings_its_texts_and_windows(open_page: Opener) -> None:
    app = open_page("lowrank", model="tiny", texts="shakespeare python-code", windows="4 64 6 32 7")
    words = text_of(app)
    assert words.index("Shakespeare") < words.index("Python code") and "Python manual" not in words
    assert "4 × 64 tokens" in words
    assert app.query_params["windows"] in ("4 64 6 32 7", ["4 64 6 32 7"])


@pytest.mark.parametrize("texts", ["/etc/passwd", "python-code /etc/passwd", "hub:../x y z", "none"])
def test_a_link_cannot_name_a_file(open_page: Opener, texts: str) -> None:
    app = open_page("lowrank", model="tiny", texts=texts, windows="-1 0 x")
    assert not app.exception and "passwd" not in text_of(app)
    assert "Python manual" in text_of(app)  # the defaults


def test_evaluation_is_a_run_at_the_sliders_bytes(
    small: Opener, gathered: Path, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setenv("COPAL_CACHE", str(gathered))
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = small("lowrank", kept="70")
    app.button(key="evaluate-budget").click().run()
    assert not app.exception
    (store,) = started
    assert store.config.structure.sparsity == pytest.approx(0.3625)
    assert "whitened-svd:accumulate" in map(str, store.config.methods)
    assert app.query_params["run"] == store.id
    assert "Watch it" in "".join(link.proto.label for link in app.get("page_link"))
    _finish(store)
    app.run()
    assert not app.exception
    assert "whitened-svd:accumulate | 70 % | 9.00 | 9.00 | 9.00" in rows_of(app)


def _finish(store: object) -> None:
    records = [PerplexityRecord("dense", 0, name, 8.0, 2.0, 62, 0) for name in DOMAINS]
    for method in map(str, store.config.methods):  # type: ignore[attr-defined]
        records += [
            PerplexityRecord(method, step, name, 9.0, 2.1, 62, 0) for step in (1, 2) for name in DOMAINS
        ]
        if not method.startswith(("copal", "wanda")):
            place = (method, 2, 0, "q_proj", "rank", 100, 100)
            records.append(FactorRecord(*place, 35, 7000, 14000, 0.1, None, 0.0, 0.1))  # type: ignore[arg-type]
    store.describe(domains=[{"name": name} for name in DOMAINS])  # type: ignore[attr-defined]
    store.add(records)  # type: ignore[attr-defined]
    store.set_state(RunState(status="done", progress=1.0))  # type: ignore[attr-defined]


def test_gathering_is_a_task_and_then_the_layers_open(small: Opener, runs_folder: Path) -> None:
    from pages.shared import tasks

    app = small("lowrank")
    app.button(key="start-gather").click().run()
    assert not app.exception
    (task,) = tasks._tasks().values()
    assert task.finished.wait(240)
    app.run()
    assert not app.exception and figures(app) > 0


def test_pages_with_decompositions_in_a_run(runs_folder: Path, open_page: Opener) -> None:
    methods = ("wanda:restart", "whitened-svd:accumulate", "hybrid:accumulate")
    config = RunConfig(checkpoint="tiny", domains=DOMAINS, methods=methods, protocol=PROTOCOL)
    store = Runs(runs_folder).create(config, run_id="lowrank-run")
    _finish(store)
    for view in ("forgetting", "matrix", "stasis", "overlap"):
        app = open_page("stasis", run=store.id, view=view)
        assert not app.exception, view
        if view in ("stasis", "overlap"):
            assert "have factors and no mask: whitened-svd:accumulate, hybrid:accumulate" in text_of(app)
        else:
            assert figures(app) >= 2
    app = open_page("sensitivity", run=store.id)
    assert not app.exception
    assert app.selectbox(key="linked-method").options == ["wanda:restart"]
    app = open_page("prune", run=store.id)
    assert not app.exception


def test_sensitivity_of_a_run_without_masks(runs_folder: Path, open_page: Opener) -> None:
    config = RunConfig(checkpoint="tiny", domains=DOMAINS, methods=("svd:restart",), protocol=PROTOCOL)
    store = Runs(runs_folder).create(config, run_id="no-mask-run")
    _finish(store)
    app = open_page("sensitivity", run=store.id)
    assert not app.exception
    assert "This run has no masks" in text_of(app)


def test_prune_offers_decompositions(open_page: Opener) -> None:
    app = open_page("prune")
    app.session_state["draft"]["checkpoint"] = "tiny"
    app.session_state["draft"]["strategies"] = {"whitened-svd": ["accumulate"]}
    app.run()
    assert not app.exception
    command = next(code.value for code in app.code if "copal_core run" in code.value)
    assert "--method whitened-svd:accumulate" in command


FAMILY = (
    "plrd[keep=0.9,members=1.0,tokens=256.0]:restart",
    "plrd[keep=0.8,members=2.0,tokens=256.0]:restart",
    "basel[keep=0.8]:restart",
)


@pytest.fixture
def family(runs_folder: Path) -> str:
    """A finished run: two sizes of a family, and bases of one layer."""
    config = RunConfig(checkpoint="tiny", domains=DOMAINS, methods=FAMILY, protocol=PROTOCOL, steps="last")
    store = Runs(runs_folder).create(config, run_id="family-run")
    records: list[Record] = [PerplexityRecord("dense", 0, name, 9.0, 2.2, 62, 0) for name in DOMAINS]
    for method, share in zip(FAMILY, (0.9, 0.8, 0.8), strict=True):
        place, rank = (method, 2, 0, "q_proj", "rank", 100, 100), round(50 * share)
        records += [PerplexityRecord(method, 2, name, 10 / share, 2.2, 62, 0) for name in DOMAINS]
        records += [
            FactorRecord(*place, rank, 200 * rank, 400 * rank, 0.1, None, 0.0, 0.1),
            TrainingRecord(method, 2, 512, 256, ""),
        ]
    store.add(records)
    basis = {"before": np.array([2.0, 1.0, 0.5]), "kept": np.array([0, 2]), "after": np.array([2.1, 0.7])}
    arrays = {f"{name}.{kind}": array for name in PROJECTIONS for kind, array in basis.items()}
    arrays |= {f"{name}.added": np.array([1]) for name in PROJECTIONS}
    store.save_arrays("bases", FAMILY[2], 2, 0, arrays)
    store.describe(
        domains=[{"name": name, "content_hash": "0"} for name in DOMAINS],
        checkpoint={"name": "tiny", "fingerprint": "f", "blocks": 1, "parameters": 10_000},
    )
    store.set_state(RunState(status="done", progress=1.0))
    return store.id


def test_families_shows_sizes_a_member_and_bases(small: Opener, family: str) -> None:
    app = small("families", run=family)
    assert not app.exception and not app.error
    text = text_of(app)
    trained = "trained on 256 distinct tokens, 2.0 passes"
    assert f"plrd[tokens=256.0]:restart | 90 % | {trained} | 11.1 | 11.1" in rows_of(app)
    assert any(row.startswith("dense model | 100 % |") for row in rows_of(app))
    assert "2 of 3 bases were kept and 1 new ones added. 1 of the kept ones" in text
    assert figures(app) == 3  # a domain each, and the bases
    assert app.selectbox(key="linked-member").value == FAMILY[0]
    assert app.button(key="export-member") and app.button(key="measure-member")
    assert "at 90 % of the bytes" in app.button(key="family-beside").label


def test_a_run_of_its_last_step_opens_on_every_page(small: Opener, family: str) -> None:
    for view in ("forgetting", "matrix", "stasis", "overlap"):
        assert not small("stasis", run=family, view=view).exception, view
    for page in ("prune", "runs", "report", "lowrank"):
        assert not small(page, run=family).exception, page


def test_drawing_in_starts_a_run_at_the_same_bytes(
    small: Opener, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = small("families", run=family)
    app.button(key="family-beside").click().run()
    assert not app.exception
    (store,) = started
    assert list(map(str, store.config.methods)) == [
        "wanda:restart", "copal:restart", "whitened-svd[keep=0.9]:restart", "svd[keep=0.9]:restart"
    ]  # fmt: skip
    assert store.config.structure.sparsity == pytest.approx(0.1625) and store.config.steps == "last"
    assert app.query_params["run"] == family or app.query_params["run"] == [family]


def test_families_without_any_says_what_to_do(
    small: Opener, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = small("families")
    assert not app.exception
    assert "on this machine" in text_of(app)
    app.button(key="start-family").click().run()
    assert not app.exception
    (store,) = started
    first = store.config.methods[0]
    assert first.name == "plrd" and first.strategy == "restart" and store.config.steps == "last"
    assert [round(m.options["keep"], 3) for m in store.config.methods] == [0.933, 0.867, 0.8, 0.8]
    assert store.config.domains[-1] == "python-code" and store.config.protocol.propagate == "dense"
    assert app.query_params["run"] == store.id
