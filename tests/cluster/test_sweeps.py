"""The grid of a sweep, its table and its front; no cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from copal_core.analysis import sweeps
from copal_core.cli import main
from copal_core.config import Method, Protocol, RunConfig, Structure
from copal_core.errors import InvalidValueError
from copal_core.experiment import cluster
from copal_core.store.folder import RunState
from copal_core.store.groups import Groups, described
from copal_core.store.runs import Runs


def grid(**changed: object) -> sweeps.Grid:
    given = {
        "checkpoints": ["tiny"],
        "domains": ["python-code", "shakespeare"],
        "methods": [Method.parse("wanda:restart"), Method.parse("copal:accumulate")],
        "structures": sweeps.structures(["unstructured", "2:4"], [0.3, 0.5]),
        "seeds": [0, 1],
        **changed,
    }
    return sweeps.Grid(**given)  # type: ignore[arg-type]


def test_every_combination_is_there_once() -> None:
    found = grid(orders=0).configs()
    assert len(found) == len({one.canonical() for one in found}) == 2 * 3 * 2 * 2
    assert {one.domains for one in found} == {("python-code", "shakespeare"), ("shakespeare", "python-code")}
    assert {str(one.structure) for one in found} == {"30 % per row", "50 % per row", "2:4"}
    assert {one.protocol.seed for one in found} == {0, 1}
    assert all(len(one.methods) == 1 for one in found)


def test_random_orders_start_with_the_given_one_and_repeat() -> None:
    given = grid(domains=["a", "b", "c", "d"], orders=3)
    orders = list(dict.fromkeys(one.domains for one in given.configs()))
    assert len(orders) == 3 and orders[0] == ("a", "b", "c", "d")
    assert orders == list(dict.fromkeys(one.domains for one in given.configs()))


def test_what_is_given_twice_is_computed_once() -> None:
    assert len(grid(seeds=[0, 0], structures=[Structure(), Structure()]).configs()) == 2


def test_sparsities_are_those_of_unstructured() -> None:
    mixed = sweeps.structures(["unstructured", "2:4"], [0.3, 0.7], "layer")
    assert [str(one) for one in mixed] == ["30 % per layer", "70 % per layer", "2:4"]
    assert [str(one) for one in sweeps.structures(["2:4", "unstructured"])] == ["2:4", "50 % per row"]
    assert [str(one) for one in sweeps.structures(["2:4"], [0.5])] == ["2:4"]
    for sparsities, group in (([0.5, 0.7], None), ([], "row")):
        with pytest.raises(InvalidValueError, match="does not go with structure 2:4"):
            sweeps.structures(["2:4", "4:8"], sparsities, group)


def test_a_method_with_an_amount_of_its_own_is_computed_once() -> None:
    own = ["mutual-information[share=0.1]:restart", "whitened-svd[keep=0.7]:restart"]
    methods = [Method.parse(text) for text in (*own, "whitened-svd:restart", "wanda:restart")]
    found = grid(methods=methods, seeds=[0]).configs()
    assert [str(one.methods[0]) for one in found].count(own[0]) == 1
    assert len(found) == 2 * 1 + 2 * 3
    words = {str(one.methods[0]): described(one, sweeps.KIND) for one in found}
    assert "10 % of the neurons" in words[own[0]] and "per row" not in words[own[0]]
    assert "70 % of the bytes kept" in words[own[1]] and "2:4" in words["wanda:restart"]
    # what is not computed does not count against the bound: 1 + 1 + 3 runs of each of 200 seeds
    assert len(grid(methods=methods[:2] + methods[3:], seeds=range(200)).configs()) == 1000


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": []}, "no methods"),
        ({"domains": []}, "no domains"),
        ({"seeds": list(range(501))}, "too large"),
        ({"orders": -1}, "orders = -1"),
        ({"domains": list("abcdefgh"), "orders": 0}, "orders = 0"),
    ],
)
def test_an_impossible_grid_is_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        grid(**changed).configs()


def test_the_front_is_what_nothing_beats() -> None:
    table = pd.DataFrame({"kept": [0.5, 0.5, 0.7, 0.9, 0.4, np.nan], "average": [9, 8, 7, 7.5, np.inf, 1]})
    assert sweeps.pareto(table, "kept", "average").tolist() == [False, True, True, False, False, False]


def test_equal_points_are_both_on_the_front() -> None:
    table = pd.DataFrame({"kept": [0.5, 0.5], "average": [8.0, 8.0]})
    assert sweeps.pareto(table, "kept", "average").all()


@pytest.mark.parametrize("given", [{"workers": -1}, {"threads": 0}])
def test_an_impossible_cluster_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match="are not possible"):
        cluster.Cluster(**given)  # type: ignore[arg-type]


def test_a_shared_server_computes_one_run_at_a_time_here(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = []
    monkeypatch.setattr("copal_core.experiment.processes.spawn", lambda *arguments: spawned.append(arguments))
    monkeypatch.setenv("COPAL_SHARED", "1")
    group = Groups(runs.root).create(sweeps.KIND, grid().configs())
    for too_much in (cluster.Cluster("10.0.0.5:6379", 1), cluster.Cluster(workers=2), cluster.Cluster()):
        with pytest.raises(InvalidValueError, match="more than one's turn"):
            cluster.start(group, too_much)
    cluster.start(group, cluster.Cluster(workers=1))
    assert len(spawned) == 1


def test_without_ray_one_line_says_how_to_get_it(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_config: Callable[..., RunConfig],
) -> None:
    monkeypatch.setattr("copal_core.experiment.cluster.connection.find_spec", lambda name: None)
    status = main.main(["sweep", "--domain", "python-code", "--method", "wanda:restart"])
    said = capsys.readouterr()
    assert status == 2 and not said.out
    assert said.err.count("\n") == 1 and "pip install -r requirements-cluster.txt" in said.err
    assert not runs.root.exists()


@pytest.mark.parametrize(("status", "stays"), [("starting", True), ("cancelled", False)])
def test_a_sweep_cancelled_while_it_starts_stays_cancelled(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, status: str, stays: bool
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("copal_core.experiment.cluster.require_ray", lambda: None)
    monkeypatch.setattr(cluster, "compute", lambda group, *others: seen.append(group.cancel_requested()))
    group = Groups(runs.root).create(sweeps.KIND, grid().configs())
    group.set_state(RunState(status))
    group.request_cancel()
    assert main.main(["sweep", "--resume", group.id, "--runs", str(runs.root)]) == 0
    assert seen == [stays]


def test_bad_input_makes_no_folder(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    for bad in (["--domain", "nowhere"], ["--domain", "shakespeare", "--structure", "5:4"]):
        assert main.main(["sweep", "--checkpoint", "tiny", "--method", "wanda:restart", *bad]) == 2
        assert capsys.readouterr().err.startswith("copal: ")
    assert not runs.root.exists()


def test_protocol_of_the_grid_is_every_runs(small_config: Callable[..., RunConfig]) -> None:
    wanted = Protocol(propagate="dense")
    assert {one.protocol.propagate for one in grid(protocol=wanted).configs()} == {"dense"}
