"""Neurons, through the app: a real run on a small random checkpoint, whose domains are hostile files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.analysis import redundancy
from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.export import smaller
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files

Opener = Callable[..., AppTest]
SELECTORS = ("mutual-information", "copal-neurons", "magnitude-neurons", "random-neurons")
HOSTILE = "<script>alert({0})</script> ![x](http://evil/{1}) **bold** | cell \u202e reversed 😀 $x^{0}$\n\n"


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def figures(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory, small_model: Path, texts: tuple[str, ...]) -> RunStore:
    """Two domains, of which one is markup in every line; every selector at two shares."""
    folder = tmp_path_factory.mktemp("neurons")
    hostile = folder / "<img src=x onerror=alert(1)>.txt"
    hostile.write_text("".join(HOSTILE.format(i, i * 7919 % 1009) for i in range(300)), encoding="utf-8")
    config = RunConfig(
        checkpoint=str(small_model),
        domains=(str(hostile), texts[1]),
        methods=tuple(f"{name}[share={share}]:accumulate" for share in (0.1, 0.3) for name in SELECTORS),
        protocol=Protocol(
            calibration=Windows(count=4, length=32),
            evaluation=Windows(count=2, length=32),
            device="cpu",
            dtype="float32",
        ),
    )
    store = Runs(folder / "runs").create(config, run_id="neurons-run", title="<i>Neurons</i>")
    loop.run(store)
    return store


@pytest.fixture
def run(computed: RunStore, runs_folder: Path) -> RunStore:
    """The same in the folder that the pages look at."""
    shutil.copytree(computed.folder, runs_folder / computed.id)
    return RunStore(runs_folder / computed.id)


def test_cost_of_removing_shows_every_domain_and_says_where_information_stands(
    open_page: Opener, run: RunStore
) -> None:
    app = open_page("neurons")
    assert not app.exception and not app.error
    assert app.query_params["run"] == run.id  # the only run that removes neurons
    assert figures(app) == 2
    text = text_of(app)
    assert "With 10 % of the neurons removed" in text and "mutual-information:accumulate" in text
    assert "10 of 96 hidden neurons go" in text
    assert "removed 10 %, 30 % of the neurons" in text and "50 % per row" not in text
    app.selectbox(key="linked-step").set_value(1).run()
    assert not app.exception and app.query_params["step"] == "1"
    app.selectbox(key="linked-share").set_value(0.3).run()
    assert "28 of 96 hidden neurons go" in text_of(app)


def test_speed_is_shown_once_it_was_measured(open_page: Opener, run: RunStore) -> None:
    method = "mutual-information[share=0.1]:accumulate"
    app = open_page("neurons")
    assert app.button(key="measure-smaller").label == "Measure"
    found = smaller.measure_smaller(run, method, 2, prompt=8, written=2)
    assert found["smaller"]["parameters"] == found["dense"]["parameters"] - 2 * 5 * 3 * 32
    assert all(found[one][side] > 0 for one in ("dense", "smaller") for side in ("prefill", "decode"))
    app = open_page("neurons", run=run.id)
    rows = [row for table in app.table for row in table.value.to_numpy().tolist()]
    assert [row[0] for row in rows] == ["dense model", "without these neurons"]


def test_redundant_pairs_with_their_tokens_escaped(open_page: Opener, run: RunStore) -> None:
    app = open_page("neurons", run=run.id, view="pairs", layer="1")
    assert "has not been analysed" in text_of(app) and app.button(key="look-at-block")
    redundancy.compute_redundancy(run, 0, 1, lambda label, done, total: None)
    app = open_page("neurons", run=run.id, view="pairs", layer="1")
    assert not app.exception and not app.error
    assert figures(app) == 2
    text = text_of(app)
    assert "48 hidden neurons of this block on 128 tokens" in text
    assert "nearest neighbours" in text and "mutual-information[share=0.1]:accumulate" in text
    cells = [str(row[0]) for table in app.table for row in table.value.to_numpy().tolist()]
    assert len(cells) == 8 and all("«" in cell and "»" in cell.replace("\\", "") for cell in cells)
    assert not any("<script" in cell or "](http" in cell or "**" in cell for cell in cells)
    second = app.selectbox(key="linked-pair").options[1]
    app.selectbox(key="linked-pair").select_index(1).run()
    assert not app.exception and app.query_params["pair"] in second.replace(" and ", "-")


def test_what_a_block_shares_is_a_symmetric_map_with_its_closest_pairs_first(run: RunStore) -> None:
    labels: list[str] = []
    redundancy.compute_redundancy(run, 1, 0, lambda label, done, total: labels.append(label))
    found = redundancy.find(run, 1, 0)
    assert found is not None and redundancy.find(run, 1, 1) is None
    assert found["map"].shape == (48, 48) and abs(found["map"] - found["map"].T).max() < 1e-6
    nats = [pair["information"] for pair in found["pairs"]]
    assert nats == sorted(nats, reverse=True) and nats[0] == pytest.approx(
        float(found["map"].max()), rel=1e-4
    )
    assert all(len(pair["x"]) == len(pair["y"]) == 128 for pair in found["pairs"])
    assert any("block by block" in label for label in labels)


def test_the_choice_needs_runs_and_compares_like_with_like(open_page: Opener, run: RunStore) -> None:
    app = open_page("neurons", run=run.id, view="choice")
    assert not app.exception and figures(app) == 1
    text = text_of(app)
    assert "One checkpoint alone says nothing" in text and "left out" not in text
    other = RunConfig(**{**dict(run.config), "protocol": run.config.protocol.model_copy(update={"seed": 1})})
    shutil.copytree(run.folder, run.folder.parent / "neurons-other")
    copy = RunStore(run.folder.parent / "neurons-other")
    content = copy._run | {"config": json.loads(other.canonical())}
    files.write_json(copy.folder / "run.json", content)
    app = open_page("neurons", run=run.id, view="choice")
    assert "1 runs under other protocols are left out" in text_of(app)


def test_a_run_without_neurons_says_what_to_do(open_page: Opener, finished_run: str) -> None:
    for view, advice in (("shares", "start one below"), ("choice", "Start it below")):
        app = open_page("neurons", run=finished_run, view=view)
        assert not app.exception and not figures(app)
        assert advice in text_of(app)


@pytest.mark.parametrize("page", ["sensitivity", "stasis", "lowrank", "prune"])
def test_other_pages_take_neuron_methods_as_they_are(page: str, open_page: Opener, run: RunStore) -> None:
    for view in ("forgetting", "stasis", "overlap") if page == "stasis" else ("",):
        app = open_page(page, run=run.id, view=view) if view else open_page(page, run=run.id)
        assert not app.exception and not app.error
    if page == "sensitivity":
        assert "remove whole neurons" in text_of(app)


def test_hostile_parameters_are_ignored(open_page: Opener, run: RunStore) -> None:
    for view in ("shares", "pairs", "choice"):
        app = open_page(
            "neurons", run=run.id, view=view, share="nan", layer="-1", on="9e9", pair="<b>", step="0"
        )
        assert not app.exception and not app.error


def test_the_form_starts_a_run_of_every_selector_at_every_share(
    open_page: Opener, runs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RunStore] = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = open_page("checkpoint")
    app.session_state["draft"].update(checkpoint="tiny", domains=["python-code"])
    app.switch_page("pages/neurons/page.py").run()
    assert not app.exception and "No runs yet" in text_of(app)
    app.button(key="start-neurons").click().run()
    assert not app.exception and not app.error
    (store,) = started
    assert len(store.config.methods) == 12
    assert {method.options["share"] for method in store.config.methods} == {0.05, 0.1, 0.3}
    assert app.query_params["run"] == store.id


def test_the_prune_form_offers_neurons_with_their_share(open_page: Opener, runs_folder: Path) -> None:
    app = open_page("checkpoint")
    app.session_state["draft"].update(
        checkpoint="tiny", strategies={"mutual-information": ["joint"], "wanda": ["restart"]}, neuron_share=20
    )
    app.switch_page("pages/prune/page.py").run()
    assert not app.exception
    assert "mutual-information[share=0.2]:joint" in app.code[0].value
