"""The estimate before a run: what fits, what does not and why, and what would."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from copal_core.checkpoints import Description, locate
from copal_core.config import RunConfig, Windows
from copal_core.experiment import preflight
from copal_core.experiment.progress import Meter, steps, total_cost

Config = Callable[..., RunConfig]


@pytest.fixture
def described(small_model: Path) -> Description:
    return dataclasses.replace(locate(str(small_model)).describe("cpu", "float32"), memory_free=8 * 2**30)


def test_a_small_run_fits(small_config: Config, described: Description, tmp_path: Path) -> None:
    found = preflight.estimate(small_config(["copal:accumulate"]), described, tmp_path)
    assert found.fits and found.problems == () and found.smaller is None
    assert 0 < found.minutes < 5
    assert 0 < found.disk_bytes < found.disk_free
    assert described.memory_needed() < found.memory_bytes < found.memory_free


def test_too_many_windows_do_not_fit_and_fewer_are_offered(
    small_config: Config, described: Description, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    asked = small_config(["wanda:joint"], calibration=Windows(count=100_000, length=1000))
    large = dataclasses.replace(described, context=2048)
    found = preflight.estimate(asked, large, tmp_path)
    assert not found.fits
    # activations that no memory holds would lie in a file, for which the disk has no room
    assert "of disk" in found.problems[0] and "fewer or shorter windows" in found.problems[0]
    assert found.smaller is not None
    assert found.smaller.protocol.calibration.tokens < asked.protocol.calibration.tokens
    assert found.smaller.methods == asked.methods and found.smaller.domains == asked.domains
    assert preflight.estimate(found.smaller, large, tmp_path).fits


def test_a_checkpoint_too_large_for_memory_has_nothing_smaller(
    small_config: Config, described: Description, tmp_path: Path
) -> None:
    none_left = dataclasses.replace(described, memory_free=2**20)
    found = preflight.estimate(small_config(["copal:accumulate"]), none_left, tmp_path)
    assert not found.fits and found.smaller is None


def test_a_model_beyond_memory_visits_block_by_block(
    small_config: Config, described: Description, tmp_path: Path
) -> None:
    sizes = {
        "hidden": 4096,
        "blocks": 32,
        "vocab": 32000,
        "total": 6_738_415_616,
        "file_bytes": 13_476_831_232,
    }
    rows = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (4096, 4096))
    rows |= {"gate_proj": (11008, 4096), "up_proj": (11008, 4096), "down_proj": (4096, 11008)}
    large = dataclasses.replace(
        described, **sizes, tied=False, projections=rows, stored_dtype="bfloat16", memory_free=16 * 10**9
    )
    found = preflight.estimate(small_config(["copal:accumulate"], domains=1), large, tmp_path)
    plan = found.plan
    assert not plan.keeps_blocks and plan.visits == 3  # dense, prune, evaluate
    assert plan.read == 3 * large.file_bytes and plan.read_seconds > 0
    assert found.memory_bytes < 4 * 10**9 < large.memory_needed()
    assert plan.remembered == 4 * 32 * sum(a * b for a, b in rows.values())
    where, first, second, _, fourth = plan.lines()
    assert where.startswith("Computes on cpu; float32")
    assert "one of 32 blocks visits at a time" in first and "3 times, 40.4 GB in all" in second
    assert "25.9 GB" in fourth
    roomy = dataclasses.replace(large, memory_free=64 * 10**9)
    assert preflight.estimate(small_config(["copal:accumulate"]), roomy, tmp_path).plan.keeps_blocks


def test_the_plan_is_what_the_computation_does(
    small_config: Config, described: Description, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from copal_core.checkpoints.backbone import Backbone

    for limit, keeps in (("1000000000", True), ("1000", False)):
        monkeypatch.setenv("COPAL_MEMORY_BYTES", limit)
        assert preflight.plan(small_config(["copal:restart"]), described).keeps_blocks == keeps
        assert Backbone(small_model, "cpu", "float32").keeps_blocks == keeps


def test_a_full_disk_is_a_problem(
    small_config: Config, described: Description, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    (problem,) = preflight.estimate(small_config(["copal:accumulate"]), described, tmp_path).problems
    assert "of disk" in problem and "free some space" in problem


def test_windows_beyond_the_context_are_a_problem(
    small_config: Config, described: Description, tmp_path: Path
) -> None:
    config = small_config(["wanda:restart"], evaluation=Windows(count=2, length=65))
    (problem,) = preflight.estimate(config, described, tmp_path).problems
    assert "evaluation windows of 65 tokens exceed the checkpoint's context of 64" in problem


def test_the_disk_estimate_covers_what_a_run_writes(finished: Any, described: Description) -> None:
    store = finished("unstructured row", "pruned")
    kinds = ("masks", "memory", "weights", "maps")
    written = sum(
        path.stat().st_size for kind in kinds for path in (store.folder / kind).rglob("*.safetensors")
    )
    assert 0.4 * written < preflight.disk_bytes(store.config, described) < 4 * written


def test_cost_grows_with_domains_methods_and_joint(small_config: Config) -> None:
    one = total_cost(small_config(["wanda:restart"]))
    assert total_cost(small_config(["wanda:restart"], domains=3)) > one
    assert total_cost(small_config(["wanda:restart", "copal:restart"])) > 2 * one * 0.9
    assert total_cost(small_config(["wanda:joint"])) > one


def test_a_run_computes_all_methods_of_a_step_before_the_next(small_config: Config) -> None:
    order = [(str(method), step) for method, step in steps(small_config(["wanda:joint", "copal:restart"]))]
    assert order == [("wanda:joint", 1), ("copal:restart", 1), ("wanda:joint", 2), ("copal:restart", 2)]


def test_the_time_left_follows_the_pace_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("copal_core.experiment.progress.time.perf_counter", lambda: now[0])
    meter = Meter(100.0)
    meter.skip(50)  # done by an earlier process: no part of the pace
    assert meter.seconds_left is None and meter.share == 0.5
    now[0] += 60
    meter.add(2)  # with what came before it, no part of the pace either
    assert meter.seconds_left is None
    now[0] += 16
    meter.add(8)
    assert meter.share == pytest.approx(0.6)
    assert meter.seconds_left == pytest.approx(80)


def test_the_time_left_of_a_short_run_neither_begins_at_half_an_hour_nor_jumps_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run of 32 s: 4 s until its first block, which is slow, then parts that take 0.6 to 1.6 times their cost."""
    total, blocks = 1000.0, 200
    cost = total / blocks
    pace = [1.0, *(0.128 * (1.6 if index // 20 % 2 else 0.6) for index in range(1, blocks))]
    times = 4.0 + np.cumsum(pace)
    ends = float(times[-1])
    naive = times * (total / (cost * np.arange(1, blocks + 1)) - 1)
    assert naive[0] > 20 * ends  # what dividing all seconds by the work done would say

    now = [0.0]
    monkeypatch.setattr("copal_core.experiment.progress.time.perf_counter", lambda: now[0])
    meter, told = Meter(total), []
    for moment in times:
        now[0] = float(moment)
        meter.add(cost)
        told.append((now[0], meter.seconds_left))
    known = [(moment, left) for moment, left in told if left is not None]
    assert len(known) > 0.9 * blocks - 15
    assert all(left < 2.2 * (ends - moment) + 1 for moment, left in known)
    for (before, was), (after, left) in itertools.pairwise(known):
        assert left <= was + (after - before) + 1e-9
    assert known[-1][1] == 0


def test_a_long_run_tells_its_time_left_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("copal_core.experiment.progress.time.perf_counter", lambda: now[0])
    meter = Meter(10_000.0)
    for moment in (30.0, 40.0, 46.0):
        now[0] = moment
        meter.add(1.0)
    assert meter.seconds_left == pytest.approx(16 / 2 * 9997)
