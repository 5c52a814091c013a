"""The Sweep page: a sweep whose runs were computed before, its front, filters and links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from copal_core.analysis import groups as analysis
from copal_core.config import Method, Protocol, Windows
from copal_core.experiment import cluster, groups
from copal_core.figures import groups as figures
from copal_core.store.groups import Group, Groups
from copal_core.store.records import PerplexityRecord
from copal_core.store.run_store import RunState
from copal_core.store.variations import Grid, structures

Opener = Callable[..., AppTest]
DOMAINS = ("python-code", "shakespeare")


@pytest.fixture
def group(runs_folder: Path) -> Group:
    """Eight runs, six of them done with made-up perplexities: copal below wanda, more kept below less."""
    grid = Grid(
        checkpoints=["tiny"],
        domains=DOMAINS,
        methods=[Method.parse("copal:accumulate"), Method.parse("wanda:restart")],
        structures=structures(["unstructured"], [0.3, 0.5]),
        seeds=[0, 1],
        protocol=Protocol(calibration=Windows.parse("4x32"), evaluation=Windows.parse("2x32")),
    )
    made = Groups(runs_folder).create(grid.configs())
    for number, member in enumerate(made.members[:6]):
        store, config = made.create_run(member), member.settings()
        method, sparsity = str(config.methods[0]), config.structure.sparsity
        described = {"name": "tiny", "blocks": 2, "projections": {"q_proj": [8, 8], "down_proj": [8, 16]}}
        store.describe(
            checkpoint=described,
            domains=[{"name": name, "spec": name, "content_hash": "0"} for name in DOMAINS],
        )
        value = 10 + 10 * sparsity + (method == "wanda:restart") + config.protocol.seed
        rows = [("dense", 0, 10.0)] + [(method, step, value) for step in (1, 2)]
        store.add([PerplexityRecord(m, step, d, v, 1.0, 64, 0) for m, step, v in rows for d in DOMAINS])
        store.set_state(RunState("done" if number < 6 else "created", progress=1.0))
    made.set_state(RunState("cancelled", "cancelled; resume goes on from there"))
    return made


def text_of(app: AppTest) -> str:
    return " ".join(str(one.value) for one in [*app.markdown, *app.caption, *app.warning])


def test_the_front_names_its_runs(group: Group, open_page: Opener) -> None:
    app = open_page("sweep", group=group.id)
    assert not app.exception and not app.error
    assert len(app.get("plotly_chart")) == 1
    front = app.table[0].value.replace(r"\\", "", regex=True)  # without the escapes
    assert list(front["Method"]) == ["copal:accumulate", "copal:accumulate"]
    assert list(front["Average"]) == ["13.0", "15.0"] and list(front["Seed"]) == ["0", "0"]
    assert "cancelled" in text_of(app) and app.button(key="resume-group")
    assert "4×32" in text_of(app)


def test_an_axis_of_shares_stays_between_nothing_and_everything(group: Group) -> None:
    table = analysis.without_dense(analysis.outcomes(group.finished()))
    alone = table[table["structure"] == table["structure"].iloc[0]]
    drawn = figures.front_figure(alone, "kept", "average", [True] * len(alone)).layout.xaxis.range
    assert 0 <= drawn[0] < alone["kept"].iloc[0] < drawn[1] <= 1


def test_opening_a_run_leads_to_its_page(group: Group, open_page: Opener) -> None:
    app = open_page("sweep", group=group.id)
    table = analysis.without_dense(analysis.outcomes(group.finished()))
    run = table.loc[table["average"].idxmin(), "run"]
    app.button(key="open-run").click().run()
    assert not app.exception
    assert app.title[0].value == "Stasis and forgetting" and app.query_params["run"] in (run, [run])


def test_filters_narrow_and_never_empty_the_page(group: Group, open_page: Opener) -> None:
    app = open_page("sweep", group=group.id, view="multiples")
    assert len(app.get("plotly_chart")) == 1
    app.multiselect(key="sweep-method").set_value(["wanda:restart"]).run()
    assert not app.exception and "wanda" in text_of(app)
    app.multiselect(key="sweep-structure").set_value(["50 % per row"]).run()
    app.multiselect(key="sweep-seed").set_value([1]).run()
    assert not app.exception and len(app.get("plotly_chart")) == 1


@pytest.mark.parametrize("view", ["transfer", "front", "<b>"])
def test_every_view_draws(group: Group, open_page: Opener, view: str) -> None:
    app = open_page("sweep", group=group.id, view=view)
    assert not app.exception and len(app.get("plotly_chart")) == 1


def test_starting_makes_the_grid_and_hands_it_over(
    runs_folder: Path, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(groups, "start", lambda group, where: begun.append((group, where)))
    app = open_page("sweep")
    assert "No group yet" in text_of(app)
    app.multiselect(key="sweep-checkpoints").set_value(["tiny"]).run()
    app.multiselect(key="sweep-structures").set_value(["removed 30 %", "2:4"]).run()
    app.button(key="begin-group").click().run()
    assert not app.exception
    ((group, where),) = begun
    assert len(group.members) == 3 * 2 * 2 and where == cluster.Cluster("", 2)
    assert app.query_params["group"] in (group.id, [group.id])


def test_low_rank_and_neurons_are_offered_and_neurons_have_their_shares(
    runs_folder: Path, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Group] = []
    monkeypatch.setattr(groups, "start", lambda group, where: begun.append(group))
    app = open_page("sweep")
    assert not [one for one in app.multiselect if one.key == "sweep-shares"]
    chosen = ["wanda:restart", "whitened-svd:accumulate", "mutual-information:accumulate"]
    app.multiselect(key="sweep-checkpoints").set_value(["tiny"]).run()
    app.multiselect(key="sweep-methods").set_value(chosen).run()
    app.multiselect(key="sweep-structures").set_value(["removed 30 %", "2:4"]).run()
    app.multiselect(key="sweep-shares").set_value([10, 30]).run()
    app.number_input(key="sweep-seeds").set_value(1).run()
    assert "6 runs" in text_of(app)
    app.button(key="begin-group").click().run()
    assert not app.exception and not app.error
    made = [member.settings() for member in begun[0].members]
    shares = [one.methods[0].options["share"] for one in made if one.methods[0].name == "mutual-information"]
    assert len(made) == 2 + 2 + 2 and sorted(shares) == [0.1, 0.3]
    assert {config.structure.kind for config in made} == {"unstructured", "n:m"}


def test_the_spread_of_a_grid_keeps_unlike_runs_apart(group: Group, open_page: Opener) -> None:
    """Of 30 % and 50 % removed, each has a strip and a mean of its own."""
    app = open_page("sweep", group=group.id, view="spread", measure="average")
    assert not app.exception and len(app.get("plotly_chart")) == 2
    found = app.table[0].value.replace(r"\\", "", regex=True)
    means = {(row["Method"], row["Structure"]): row["Mean"] for _, row in found.iterrows()}
    assert means[("copal:accumulate", "30 % per row")] == "13.5"
    assert means[("copal:accumulate", "50 % per row")] == "15.0"
    assert "30 % per row: copal:accumulate is lower than" in text_of(app).replace("\\", "")


def test_a_run_is_repeated_over_seeds_here_or_on_ray(
    finished_run: str, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[Group, cluster.Cluster | None]] = []
    monkeypatch.setattr(groups, "start", lambda group, where: begun.append((group, where)))
    app = open_page("sweep")
    app.segmented_control(key="group-kind").set_value("seeds").run()
    app.button(key="begin-group").click().run()
    app.number_input(key="workers-1").set_value(3).run()
    app.button(key="begin-group").click().run()
    assert not app.exception
    assert [where for _, where in begun] == [None, cluster.Cluster("", 3)]
    assert [group.kind for group, _ in begun] == ["repeat", "repeat"]
    assert begun[0][0].base == finished_run


def test_without_ray_the_page_computes_here_and_says_how_to_get_it(
    group: Group, open_page: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("copal_core.experiment.cluster.connection.find_spec", lambda name: None)
    launched: list[list[str]] = []
    monkeypatch.setattr("copal_core.experiment.processes.launch", lambda job, words: launched.append(words))
    app = open_page("sweep", group=group.id)
    assert not app.exception and "pip install -r requirements-cluster.txt" in text_of(app)
    assert len(app.get("plotly_chart")) == 1
    app.button(key="resume-group").click().run()
    assert not app.exception and not app.error
    assert [words[:3] for words in launched] == [["groups", group.id, "--resume"]]
    assert "--workers" not in launched[0]


def test_an_unknown_group_is_one_line_and_old_links_still_lead_to_theirs(
    group: Group, open_page: Opener
) -> None:
    app = open_page("sweep", group="../../etc")
    assert not app.exception and len(app.error) == 1
    app = open_page("sweep", sweep=group.id)
    assert not app.exception and not app.error
    assert app.query_params["group"] in (group.id, [group.id])
