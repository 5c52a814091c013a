"""Groups: which runs they are made of, computed one after another, cancelled, killed and resumed; what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from copal_core.analysis import comparability
from copal_core.analysis import groups as analysis
from copal_core.analysis.results import result_of
from copal_core.cli.main import main
from copal_core.config import RunConfig, Structure, Windows
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment import groups, loop, processes
from copal_core.store import shelf
from copal_core.store.folder import RunState
from copal_core.store.groups import Group, Groups
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.store.variations import MOST, orders, seeds

METHODS = ["copal:accumulate", "wanda:restart"]


@pytest.fixture
def config(small_config: Callable[..., RunConfig]) -> RunConfig:
    return small_config(METHODS, domains=2)


@pytest.fixture
def base(runs: Runs, config: RunConfig) -> RunStore:
    store = runs.create(config, title="Base")
    loop.run(store)
    return store


# -- which runs ----------------------------------------------------------------------------------------


def test_seeds_and_sizes(config: RunConfig) -> None:
    sizes = [Windows.parse("2x24"), Windows.parse("4x24")]
    found = [(str(c.protocol.calibration), c.protocol.seed) for c in seeds(config, 3, sizes)]
    assert found == [("2x24", 0), ("2x24", 1), ("2x24", 2), ("4x24", 0), ("4x24", 1), ("4x24", 2)]
    assert {c.protocol.evaluation for c in seeds(config, 3, sizes)} == {config.protocol.evaluation}
    for count in (0, 1, MOST + 1):
        with pytest.raises(InvalidValueError):
            seeds(config, count)


def test_orders_are_all_or_a_seeded_draw(small_config: Callable[..., RunConfig]) -> None:
    config = small_config(METHODS, domains=3)
    every = [c.domains for c in orders(config)]
    assert len(set(every)) == math.factorial(3)
    assert every[0] == config.domains
    drawn = [c.domains for c in orders(config, 4, seed=1)]
    assert len(set(drawn)) == 4
    assert drawn[0] == config.domains
    assert drawn == [c.domains for c in orders(config, 4, seed=1)]
    assert len(orders(config, 100)) == 6
    with pytest.raises(InvalidValueError, match="at least 2"):
        orders(config, 1)
    with pytest.raises(InvalidValueError, match="one order"):
        orders(small_config(METHODS, domains=1))


def test_too_many_orders_are_refused_and_a_draw_of_them_is_not(
    small_config: Callable[..., RunConfig],
) -> None:
    config = small_config(METHODS)
    many = RunConfig(**{**dict(config), "domains": tuple(f"{name}.txt" for name in "abcdefgh")})
    with pytest.raises(InvalidValueError, match="orders = 0 is not possible here, of 40320"):
        orders(many)
    assert len({c.domains for c in orders(many, 10)}) == 10


# -- computing -----------------------------------------------------------------------------------------


def test_a_group_computes_its_runs_and_takes_the_base_for_its_own(runs: Runs, base: RunStore) -> None:
    group = Groups(runs.root).create(seeds(base.config, 3), base, "Three")
    assert group.members[0].run == base.id
    groups.compute(group)
    assert group.state().status == "done"
    assert groups.progress(group) == (3, 1.0)
    stores = group.finished()
    assert [store.config.protocol.seed for store in stores] == [0, 1, 2]
    assert (base.folder / "memory").is_dir()  # the base keeps what a branch needs
    assert not (stores[1].folder / "memory").exists()
    with pytest.raises(RunError, match="kept no memory"):
        processes.branch(stores[1], 1, base.config.domains[1])
    alone = runs.create(stores[1].config)  # a member is a run like any other
    loop.run(alone)
    assert alone.perplexity().equals(stores[1].perplexity())


def test_cancelled_and_resumed(runs: Runs, config: RunConfig) -> None:
    group = Groups(runs.root).create(orders(config))
    seen: list[dict] = []

    def stop() -> bool:
        return any(event["event"] == "block" and event["member"] == 2 for event in seen)

    with pytest.raises(Cancelled):
        groups.compute(group, report=seen.append, should_stop=stop)
    assert group.state().status == "cancelled"
    first, second = group.stores()
    assert (first.state().status, second.state().status) == ("done", "cancelled")
    kept = first.folder.joinpath("results.sqlite").read_bytes()
    groups.compute(group)
    assert group.state().status == "done"
    assert first.folder.joinpath("results.sqlite").read_bytes() == kept  # not computed again
    undisturbed = runs.create(second.config)
    loop.run(undisturbed)
    assert undisturbed.perplexity().equals(second.perplexity())


def test_what_varies_decides_the_kind(
    runs: Runs, config: RunConfig, small_config: Callable[..., RunConfig]
) -> None:
    root = Groups(runs.root)
    sizes = [Windows.parse("2x24"), Windows.parse("4x24")]
    sparser = small_config(METHODS, domains=2, structure=Structure(sparsity=0.6))
    made = {
        "repeat": root.create(seeds(config, 2, sizes)),
        "orders": root.create(orders(config)),
        "sweep": root.create([config, sparser]),
    }
    assert {kind: group.kind for kind, group in made.items()} == {kind: kind for kind in made}
    assert {kind: group.varies for kind, group in made.items()} == {
        "repeat": ("calibration", "seed"),
        "orders": ("order",),
        "sweep": ("structure",),
    }
    group = made["repeat"]
    assert group.describe(group.members[-1]) == "calibration 4×24, seed 1"
    assert [made[kind].sampled for kind in made] == ["seed", "order", "seed"]
    content = json.loads((group.folder / "group.json").read_text())
    del content["varies"]  # as earlier versions wrote it
    (group.folder / "group.json").write_text(json.dumps({**content, "kind": "repeat"}))
    assert Group(group.folder).kind == "repeat"


def test_a_killed_group_is_interrupted_and_goes_on(runs: Runs, config: RunConfig) -> None:
    group = Groups(runs.root).create(seeds(config, 2))
    group.set_state(RunState("running"))  # what a killed process leaves
    assert group.state().status == "interrupted"
    with group.lock():
        assert group.state().status == "running"
        with pytest.raises(RunError, match="being computed"):
            groups.start(group)
    groups.compute(group)
    assert group.state().status == "done"


def test_a_discarded_group_comes_back_with_its_runs(runs: Runs, base: RunStore) -> None:
    root = Groups(runs.root)
    group = root.create(seeds(base.config, 3), base)
    groups.compute(group)
    with group.lock(), pytest.raises(RunError, match="cancel it, then delete"):
        groups.discard(group)
    groups.discard(group)
    assert root.list() == []
    assert [run.id for run in runs.list()] == [base.id]  # the base is a run of its own
    shelf.restore(runs.root, group.members[2].run)
    (back,) = root.list()
    assert [store.config.protocol.seed for store in back.finished()] == [0, 2]
    groups.compute(back)
    assert len(back.finished()) == 3


def test_a_member_that_fails_holds_up_no_other(runs: Runs, config: RunConfig) -> None:
    changed = {**dict(config.protocol), "calibration": Windows.parse("90000x24")}
    broken = RunConfig(**{**dict(config), "protocol": type(config.protocol)(**changed)})
    group = Groups(runs.root).create([broken, config])
    with pytest.raises(RunError, match="1 of 2 runs did not finish"):
        groups.compute(group)
    assert group.state().status == "failed"
    assert [store.state().status for store in group.stores()] == ["failed", "done"]


def test_hostile_and_damaged_groups(runs: Runs, config: RunConfig) -> None:
    root = Groups(runs.root)
    for name in ("../../etc", "x", "no-such-group"):
        with pytest.raises((InvalidValueError, RunError)):
            root.open(name)
    group = root.create(seeds(config, 2))
    (group.folder / "group.json").write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        root.open(group.id)
    assert root.list() == []


def test_the_command_line(runs: Runs, base: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", base.id, "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "done"
    assert [run["status"] for run in found["runs"]] == ["done", "done"]
    assert {row["method"] for row in found["spread"]} == {"dense", *METHODS}
    assert len(found["verdicts"]) == 1
    assert main(["orders", base.id, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    assert main(["groups", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["groups", found["group"], "--resume", "--cancel"]) == 2
    assert main(["sweep", "--resume", found["group"], "--json"]) == 0  # the same as `groups ID --resume`
    again = json.loads(capsys.readouterr().out)
    assert again == found
    assert main(["groups", found["group"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["method", "calibration", "runs", "mean", "least", "most"]
    assert {line.split()[0] for line in lines[3:6]} == {"dense", *METHODS}
    assert main(["repeat", base.id, "--seeds", "1"]) == 2


# -- what they say -------------------------------------------------------------------------------------


def table(values: dict[str, list[float]]) -> pd.DataFrame:
    """Outcomes by hand: of each method one value a seed."""
    rows = [
        {**dict.fromkeys(analysis.SETTINGS, "same"), "run": f"run-{seed}", "seed": seed, "method": method}
        | {"calibration": "2x24", "windows": 2, "texts": "same"}
        | {"average": value, "ratio": value / 10, "backward_transfer": 0.0}
        for method, found in values.items()
        for seed, value in enumerate(found)
    ]
    return pd.DataFrame(rows)


def test_unlike_runs_are_neither_averaged_nor_compared() -> None:
    """50 % and 70 % removed, two seeds each: two parts, with a mean and a gap of their own."""
    values = {50: {"a:x": [10.0, 12.0], "b:x": [11.0, 13.0]}, 70: {"a:x": [20.0, 24.0], "b:x": [19.0, 23.0]}}
    mixed = pd.concat(
        table(found).assign(run_structure=f"{share} % per row") for share, found in values.items()
    )
    spread = analysis.spread(mixed, "average")
    assert spread.set_index(["run_structure", "method"])["mean"].to_dict() == {
        ("50 % per row", "a:x"): 11.0,
        ("50 % per row", "b:x"): 12.0,
        ("70 % per row", "a:x"): 22.0,
        ("70 % per row", "b:x"): 21.0,
    }
    first, second = analysis.verdicts(mixed, "average", "seed")
    assert first.startswith("50 % per row: a:x is lower than b:x by 1 on average")
    assert second.startswith("70 % per row: b:x is lower than a:x by 1 on average")


def test_parts_are_named_by_what_differs() -> None:
    short, long = table({"a:x": [1.0, 2.0]}), table({"a:x": [3.0, 4.0]})
    both = pd.concat([short.assign(length=24), long.assign(calibration="2x48", length=48)])
    assert [words for words, _ in analysis.alike(both, "seed")] == ["calibration 2×24", "calibration 2×48"]
    assert [words for words, _ in analysis.alike(both, "seed", "calibration")] == [
        "windows of 24 tokens",
        "windows of 48 tokens",
    ]
    assert [words for words, _ in analysis.alike(short, "seed")] == [""]
    changed = pd.concat([short.assign(weights="before"), short.assign(weights="after", seed=[2, 3])])
    assert len(analysis.alike(changed, "seed")) == 2


def test_runs_that_saw_other_texts_are_no_pair() -> None:
    """The second method's run of seed 1 came after a file had changed: one pair is left, and says nothing."""
    runs = table({"a:x": [10.0, 12.0], "b:x": [11.0, 13.0]})
    runs.loc[(runs["method"] == "b:x") & (runs["seed"] == 1), "texts"] = "changed"
    assert [gap.runs for gap in analysis.gaps(runs, "average")] == [1]


def test_the_spread_by_hand() -> None:
    row = analysis.spread(table({"a:restart": [10.0, 12.0, 14.0]}), "average").iloc[0]
    assert (row["mean"], row["least"], row["most"], row["range"]) == (12.0, 10.0, 14.0, 4.0)
    half = 4.30265273 * 2.0 / math.sqrt(3)  # Student's t of two degrees of freedom, standard deviation 2
    assert row["low"] == pytest.approx(12 - half)
    assert row["high"] == pytest.approx(12 + half)
    assert math.isnan(analysis.half_width(np.array([1.0])))


def test_many_runs_have_students_quantile_too() -> None:
    """2.0395 for the 31 degrees of freedom of 32 runs; the normal distribution's 1.96 is too narrow."""
    values = np.arange(32.0)
    assert analysis.half_width(values) == pytest.approx(2.0395134 * values.std(ddof=1) / math.sqrt(32))


def test_a_steady_gap_is_told_from_chance() -> None:
    steady = analysis.gaps(
        table({"b:restart": [11.0, 21.1, 31.0], "a:restart": [10.0, 20.0, 30.0]}), "average"
    )[0]
    assert (steady.first, steady.lower, steady.clear) == ("a:restart", 3, True)
    assert "smaller than the spread over 3 seeds" in steady.in_words()
    wide = analysis.gaps(
        table({"a:restart": [10.0, 10.1, 10.2], "b:restart": [20.0, 20.1, 20.3]}), "average"
    )[0]
    assert "larger than the spread of either" in wide.in_words()
    noise = analysis.gaps(
        table({"a:restart": [10.0, 12.0, 14.0], "b:restart": [11.0, 11.0, 15.0]}), "average"
    )[0]
    assert not noise.clear
    assert "within chance" in noise.in_words()
    once = analysis.gaps(table({"a:restart": [10.0], "b:restart": [11.0]}), "average")[0]
    assert "says nothing about chance" in once.in_words()
    assert "depends on the order" in noise.in_words("orders")


def test_neighbours_are_next_in_the_ranking() -> None:
    found = analysis.gaps(table({"c:x": [3.0, 3.0], "a:x": [1.0, 1.0], "b:x": [2.0, 2.0]}), "average")
    assert len(found) == 3
    assert [(gap.first, gap.second) for gap in analysis.neighbours(found)] == [("a:x", "b:x"), ("b:x", "c:x")]


def test_outcomes_of_a_run(base: RunStore) -> None:
    found = analysis.outcomes([base]).set_index("method")
    assert list(found.index) == ["dense", *METHODS] and set(found["structure"]) == {"dense", "50 % per row"}
    assert len(analysis.outcomes([base, base])) == 5  # the dense model of a setting once
    result = result_of(base)
    for method in result["methods"]:
        assert found.loc[method["method"], "average"] == pytest.approx(method["average_perplexity"])
        assert found.loc[method["method"], "backward_transfer"] == pytest.approx(method["bwt"])
    assert found.loc["dense", "ratio"] == 1.0


def test_only_like_runs_are_drawn_together(
    runs: Runs, base: RunStore, small_config: Callable[..., RunConfig]
) -> None:
    sparser = runs.create(small_config(METHODS, domains=2, structure=Structure(sparsity=0.6)))
    loop.run(sparser)
    other_seed = runs.create(small_config(METHODS, domains=2, seed=1))
    loop.run(other_seed)
    parts = comparability.group_by_protocol([base, other_seed, sparser])
    assert [[store.id for store in part] for part in parts] == [[base.id, sparser.id], [other_seed.id]]
    assert "seed 0 against 1" in comparability.reason([base, other_seed, sparser])
    assert comparability.reason([base, sparser]) == ""
    content = json.loads((sparser.folder / "run.json").read_text())
    content["info"]["domains"][0]["content_hash"] = "f" * 64
    (sparser.folder / "run.json").write_text(json.dumps(content))
    assert "text of a domain has changed" in comparability.reason([base, RunStore(sparser.folder)])
