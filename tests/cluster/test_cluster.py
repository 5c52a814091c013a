"""Sweeps on a real Ray cluster of two nodes on this machine, against the same runs in one process."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copal_core.analysis import groups as analysis
from copal_core.analysis.results import result_of
from copal_core.config import Method, RunConfig, Structure, Windows
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment import cluster, groups, loop
from copal_core.experiment.cluster import calibration
from copal_core.store.groups import Group, Groups
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.store.variations import Grid
from copal_core.system import files
from tests.support import wait_until

ray = pytest.importorskip("ray", reason="Ray is an optional extra")
METHODS = (
    "wanda:restart",
    "copal:accumulate",
    "whitened-svd:accumulate",
    "mutual-information[share=0.25]:accumulate",
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head and a second node, of one processor each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def where(nodes: Any) -> cluster.Cluster:
    return cluster.Cluster(nodes.address, threads=1)


@pytest.fixture
def grid(small_config: Callable[..., RunConfig]) -> Grid:
    """14 runs on the small random checkpoint: neurons have no structure."""
    one = small_config(["wanda:restart"])
    return Grid(
        checkpoints=[one.checkpoint],
        domains=one.domains,
        methods=[Method.parse(text) for text in METHODS],
        structures=[Structure(sparsity=0.5), Structure.parse("2:4")],
        seeds=[0, 1],
        protocol=one.protocol,
    )


@pytest.fixture
def group(runs: Runs, grid: Grid) -> Group:
    return Groups(runs.root).create(grid.configs())


def bytes_of(store: RunStore) -> dict[str, str]:
    """Everything that a run computed: arrays by their files' bytes, numbers by their values."""
    kinds = ("masks", "factors", "neurons", "weights", "maps", "windows")
    files = [path for kind in kinds for path in (store.folder / kind).rglob("*.safetensors")]
    found = {
        str(path.relative_to(store.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    result = result_of(store)
    return {**found, "dense": repr(result["dense"]), "rows": repr(result["methods"][0]["perplexity"])}


def in_one_process(group: Group, folder: Path) -> list[dict[str, str]]:
    found = []
    for member in group.members:
        store = Runs(folder).create(member.settings())
        loop.run(store)
        found.append(bytes_of(store))
    return found


def test_a_node_killed_in_mid_sweep_changes_no_bit(
    nodes: Any, where: cluster.Cluster, group: Group, tmp_path: Path
) -> None:
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if len(events) == 2:  # the node holds a run now
            threading.Thread(
                target=nodes.remove_node, args=(second,), kwargs={"allow_graceful": False}
            ).start()

    groups.compute(group, where, report)
    assert group.state().status == "done"
    assert len(events) == len(group.members) and not any(event["problem"] for event in events)
    expected = in_one_process(group, tmp_path / "alone")
    for store, wanted in zip(group.stores(), expected, strict=True):
        found = bytes_of(store)
        assert len(found) > 5 and found == wanted
    table = analysis.without_dense(analysis.outcomes(group.stores()))
    assert len(table) == 14 and table["average"].notna().all() and set(table["method"]) == set(METHODS)
    assert set(table[table["method"] == METHODS[-1]]["structure"]) == {"25 % of the neurons"}
    assert table["kept"].between(0, 1, inclusive="neither").all()


def test_a_worker_that_does_not_see_the_runs_sends_them_back(
    where: cluster.Cluster, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the token that a worker compares is the driver's; another one is another machine's folder
    write = files.write_text

    def elsewhere(path: Path, text: str, durable: bool = True) -> None:
        write(path, "another folder's" if path.name == "token" else text, durable)

    monkeypatch.setattr("copal_core.system.files.write_text", elsewhere)
    few = Groups(group.root).create([member.settings() for member in group.members[:2]])
    groups.compute(few, where)
    expected = in_one_process(few, tmp_path / "alone")
    assert [bytes_of(store) for store in few.stores()] == expected
    assert not list(group.root.glob(".arriving-*"))


def test_cancel_stops_the_tasks_and_resume_goes_on(where: cluster.Cluster, group: Group) -> None:
    def stop(event: dict[str, Any]) -> None:
        group.request_cancel()

    with pytest.raises(Cancelled):
        groups.compute(group, where, stop)
    done = len(group.finished())
    assert group.state().status == "cancelled" and 1 <= done < len(group.members)
    wait_until(lambda: not any(store.is_locked() for store in group.stores()), "no worker holds a run")
    group.clear_cancel()
    seen: list[dict[str, Any]] = []
    groups.compute(group, where, seen.append)
    assert group.state().status == "done" and len(seen) == len(group.members) - done


def test_a_run_that_fails_holds_up_no_other(where: cluster.Cluster, runs: Runs, grid: Grid) -> None:
    good = grid.configs()[0]
    bad = RunConfig(**{**dict(good), "structure": Structure.parse("3:7")})  # 7 divides no layer
    both = Groups(runs.root).create([bad, good])
    with pytest.raises(RunError, match="3:7 needs an input dimension"):
        groups.compute(both, where)
    assert both.state().status == "failed" and len(both.finished()) == 1


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
def test_a_calibration_over_workers_gives_the_same_bits(
    nodes: Any,
    where: cluster.Cluster,
    small_config: Callable[..., RunConfig],
    runs: Runs,
    tmp_path: Path,
    propagate: str,
) -> None:
    """Two stretches of text over two workers, against one process."""
    lines = (f"def area_{i}(radius):\n    return {i * i % 997} * radius ** {i % 7}\n" for i in range(1800))
    (tmp_path / "long.txt").write_text("".join(lines))
    settings = {"calibration": Windows(count=400, length=48), "propagate": propagate}
    config = small_config(["copal:accumulate", "sparsegpt:restart"], domains=1, **settings)
    config = RunConfig(**{**dict(config), "domains": (str(tmp_path / "long.txt"),)})
    alone, spread = runs.create(config), runs.create(config)
    loop.run(alone)
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    with cluster.connected(where) as connected:
        counts: list[tuple[int, int]] = []

        def hold(backbone: Any, sets: Any) -> calibration.ShardedStates:
            made = calibration.ShardedStates(connected, where, backbone, sets)
            counts.append((len(made.workers), made.stretches))
            return made

        loop.run(spread, states=hold)
    assert counts == [(2, 2), (2, 2)]
    nodes.remove_node(second, allow_graceful=True)
    assert bytes_of(spread) == bytes_of(alone) and len(bytes_of(alone)) > 5


def test_an_address_without_a_cluster_is_one_clear_line(runs: Runs, group: Group) -> None:
    with pytest.raises(InvalidValueError, match="there is no Ray cluster"):
        groups.compute(group, cluster.Cluster("127.0.0.1:1"))
    assert group.state().status == "failed"
