"""The Runs page through the app: filters, names, comparison, deletion and its way back, groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.config import RunConfig
from copal_core.store import shelf
from copal_core.store.groups import Group, Groups
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs
from copal_core.store.variations import orders, seeds

Opener = Callable[..., AppTest]


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.success]
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def keys(app: AppTest) -> set[str]:
    return {button.key for button in app.button}


def linked(app: AppTest, name: str = "run") -> str:
    """A parameter of the page's link."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def change(store: RunStore, **config: object) -> RunStore:
    """A run's configuration as another program might have written it."""
    content = json.loads((store.folder / "run.json").read_text())
    changed = RunConfig(**{**dict(store.config), **config})
    content["config"] = json.loads(changed.canonical())
    (store.folder / "run.json").write_text(json.dumps(content))
    return RunStore(store.folder)


@pytest.fixture
def two(runs_folder: Path, synthetic: ModuleType) -> tuple[RunStore, RunStore]:
    first = synthetic.write_run(runs_folder, run_id="first-run", title="Alpha <b>bold</b>")
    return first, synthetic.write_run(runs_folder, run_id="second-run", status="cancelled", title="Beta")


@pytest.mark.usefixtures("two")
def test_filters(open_page: Opener) -> None:
    app = open_page("runs")
    assert {"open-first-run", "open-second-run"} <= keys(app)
    assert "Alpha <b>bold</b>" in text_of(app)
    assert not any(part.allow_html for part in app.markdown)
    app.selectbox(key="filter-status").set_value("cancelled").run()
    assert "open-second-run" in keys(app) and "open-first-run" not in keys(app)
    app.text_input(key="filter-text").set_value("alpha").run()
    assert "No run meets these filters" in text_of(app)
    app.selectbox(key="filter-status").set_value("All").run()
    assert "open-first-run" in keys(app) and "open-second-run" not in keys(app)
    assert not app.exception


def test_rename_and_note(two: tuple[RunStore, RunStore], open_page: Opener) -> None:
    app = open_page("runs", run="first-run")
    next(one for one in app.text_input if one.label == "Title").set_value("Gamma")
    next(one for one in app.text_area if one.label == "Note").set_value("*Seen* in class")
    next(one for one in app.button if one.label == "Save").click().run()
    assert not app.exception
    assert two[0].info["title"] == "Gamma"
    assert "Saved." in text_of(app)
    assert "*Seen* in class" in text_of(app)


def test_delete_and_back(two: tuple[RunStore, RunStore], runs_folder: Path, open_page: Opener) -> None:
    app = open_page("runs", run="first-run", runs="first-run.second-run")
    app.button(key="delete-run").click().run()
    assert not app.exception
    assert "open-first-run" not in keys(app)
    assert linked(app, "runs") == "second-run"
    app.button(key="undelete").click().run()
    assert "open-first-run" in keys(app)
    assert two[0].info["title"].startswith("Alpha")
    shelf.delete(two[1])
    app = open_page("runs", view="trash")
    app.button(key="restore-second-run").click().run()
    assert Runs(runs_folder).open("second-run").info["title"] == "Beta"
    shelf.delete(RunStore(runs_folder / "second-run"))
    app = open_page("runs", view="trash")
    app.button(key="empty-trash").click().run()
    assert "The trash is empty" in text_of(app)
    assert shelf.trashed(runs_folder) == []


def test_a_running_run_cannot_be_deleted(two: tuple[RunStore, RunStore], open_page: Opener) -> None:
    two[0].set_state(RunState(status="running", progress=0.4))
    with two[0].lock():
        app = open_page("runs", run="first-run")
        assert app.button(key="delete-run").disabled
        app.button(key="cancel-run").click().run()
    assert two[0].cancel_requested()
    assert not app.exception


def test_resume_branch_and_undo(
    two: tuple[RunStore, RunStore], open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RunStore] = []
    monkeypatch.setattr("copal_core.experiment.processes.start", started.append)
    app = open_page("runs", run="second-run")
    app.button(key="resume-run").click().run()
    assert [store.id for store in started] == ["second-run"]
    for name in ("masks", "memory"):
        (two[0].folder / name).mkdir()
    for index in range(3):
        path = two[0].folder / "windows" / f"domain-{index:02d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    app = open_page("runs", run="first-run")
    app.button(key="undo-run").click().run()
    assert not app.exception
    undone = Runs(two[0].folder.parent).open(linked(app))
    assert undone.domains == two[0].domains[:2]
    assert undone.state().status == "done"
    app = open_page("runs", run="first-run")
    app.selectbox(key="branch-step").set_value(2)
    app.selectbox(key="branch-domain").set_value("licences").run()
    app.button(key="branch-run").click().run()
    assert not app.exception
    assert started[-1].config.domains == ("python-code", "python-manual", "licences")


def test_compare_draws_like_runs_together_and_others_apart(
    two: tuple[RunStore, RunStore], synthetic: ModuleType, open_page: Opener
) -> None:
    app = open_page("runs", view="side", runs="first-run.second-run")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 2
    assert not app.warning
    third = synthetic.write_run(two[0].folder.parent, run_id="third-run")
    change(third, protocol=type(third.config.protocol)(**{**dict(third.config.protocol), "seed": 7}))
    app = open_page("runs", view="side", runs="first-run.second-run.third-run.no-such-run")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 4
    assert "seed 0 against 7" in text_of(app)
    assert "no-such-run" in text_of(app)
    app = open_page("runs", view="side", runs="first-run")
    assert "Choose two runs or more" in text_of(app)


@pytest.fixture
def group_of(runs_folder: Path, synthetic: ModuleType) -> Callable[[str], Group]:
    def make(kind: str) -> Group:
        base = synthetic.write_run(runs_folder, run_id="base-run")
        configs = seeds(base.config, 3) if kind == "repeat" else orders(base.config, 3)
        group = Groups(runs_folder).create(configs, base, "Group")
        for member in group.members[1:]:
            change(synthetic.write_run(runs_folder, run_id=member.run), **dict(member.settings()))
        group.set_state(RunState("done"))
        return group

    return make


@pytest.mark.parametrize(("kind", "view"), [("repeat", "seeds"), ("orders", "orders")])
def test_a_group_is_drawn_with_its_verdict(
    kind: str, view: str, group_of: Callable[[str], Group], open_page: Opener
) -> None:
    group = group_of(kind)
    for measure in ("average", "ratio", "backward_transfer"):
        app = open_page("runs", view=view, group=group.id, measure=measure)  # which leads to the page Sweep
        assert not app.exception and app.title[0].value == "Sweep"
        assert len(app.get("plotly_chart")) == 1
        assert len([one for one in app.expander if one.label == "Table and download"]) == 1
        assert " is lower than " in text_of(app)
        assert "Protocol: tiny" in text_of(app) and "evaluation 4×64" in text_of(app)


@pytest.mark.parametrize("view", ["list", "side", "seeds", "orders", "trash", "<b>"])
def test_hostile_links_and_damaged_runs(view: str, two: tuple[RunStore, RunStore], open_page: Opener) -> None:
    (two[0].folder / "status.json").write_text("{")
    (two[1].folder / "results.sqlite").write_bytes(b"no database" * 200)
    hostile = {"runs": "../../etc.<b>x</b>.first-run.second-run", "group": "../..", "measure": "__class__"}
    for run in ("first-run", "second-run", "![a](http://b)"):
        app = open_page("runs", view=view, run=run, **hostile)
        assert not app.exception
        assert "](http" not in "".join(error.value for error in app.error)


@pytest.mark.parametrize(("kind", "view"), [("repeat", "seeds"), ("orders", "orders")])
def test_a_group_is_started_watched_and_cancelled(
    kind: str, view: str, finished_run: str, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Group] = []
    monkeypatch.setattr("copal_core.experiment.groups.start", lambda group, *where: started.append(group))
    app = open_page("runs", view=view)  # leads to the page Sweep
    assert app.title[0].value == "Sweep" and app.segmented_control(key="group-kind").value == view
    app = open_page("sweep")
    app.segmented_control(key="group-kind").set_value(view).run()
    app.button(key="begin-group").click().run()
    assert not app.exception
    (group,) = started
    assert len(group.members) == (5 if kind == "repeat" else 6)
    assert "Not enough runs yet" in text_of(app)
    group.set_state(RunState("running"))
    with group.lock():
        app = open_page("sweep", group=group.id)
        app.button(key="cancel-group").click().run()
        assert group.cancel_requested()
        assert not app.exception
    app = open_page("sweep", group=group.id)
    app.button(key="resume-group").click().run()
    assert len(started) == 2
