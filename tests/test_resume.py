"""A run ends with the same bytes however often it is stopped: cancelled, failed on a full disk, or killed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.config import RunConfig
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment import loop
from copal_core.experiment import processes as jobs
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files
from tests.support import wait_until

METHODS = ["copal:accumulate", "sparsegpt:sequential", "wanda:joint", "magnitude:restart"]
Same = Callable[[RunStore, RunStore], None]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    store = Runs(tmp_path_factory.mktemp("undisturbed")).create(small_config(METHODS, domains=3))
    loop.run(store)
    return store


def test_the_same_run_twice_is_the_same(undisturbed: RunStore, runs: Runs, same_outcome: Same) -> None:
    again = runs.create(undisturbed.config)
    loop.run(again)
    same_outcome(again, undisturbed)


@pytest.mark.parametrize("how", ["missing", "cut short", "empty"])
@pytest.mark.parametrize(
    ("kind", "method"),
    [("masks", "wanda:joint"), ("masks", "copal:accumulate"), ("weights", "sparsegpt:sequential")],
)
def test_a_damaged_file_of_a_finished_run_is_computed_again(
    undisturbed: RunStore, tmp_path: Path, same_outcome: Same, kind: str, method: str, how: str
) -> None:
    shutil.copytree(undisturbed.folder, tmp_path / undisturbed.id)
    store = RunStore(tmp_path / undisturbed.id)
    path = store.block_path(kind, method, 2, 0)
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-7] if how == "cut short" else b"")
    events: list[dict[str, Any]] = []
    loop.run(store, events.append)
    repairs = [event for event in events if event["event"] == "repair"]
    assert [(one["method"], one["step"], one["block"]) for one in repairs] == [(method, 2, 0)]
    assert path.name in repairs[0]["message"] and ("missing" in repairs[0]["message"]) == (how == "missing")
    assert path.read_bytes() == content
    assert {(one["method"], one["step"]) for one in events if one["event"] == "block"} == {(method, 2)}
    assert store.state().status == "done"
    same_outcome(store, undisturbed)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("svd:restart", "factors"), ("magnitude-neurons:restart", "neurons"), ("hybrid:restart", "masks")],
)
def test_factors_neurons_and_a_hybrids_masks_are_missed_too(
    runs: Runs, small_config: Callable[..., RunConfig], method: str, kind: str
) -> None:
    store = runs.create(small_config([method], domains=1))
    loop.run(store)
    path = next(iter(sorted((store.folder / kind).rglob("*.safetensors"))))
    content = path.read_bytes()
    path.unlink()
    events: list[dict[str, Any]] = []
    loop.run(store, events.append)
    assert "repair" in {event["event"] for event in events} and path.read_bytes() == content
    assert store.finished_blocks(method, 1) == 2


def test_a_damaged_file_that_cannot_be_computed_again_is_said(undisturbed: RunStore, tmp_path: Path) -> None:
    shutil.copytree(undisturbed.folder, tmp_path / undisturbed.id)
    store = RunStore(tmp_path / undisturbed.id)
    shutil.rmtree(store.folder / "memory")
    store.describe(memory_dropped=True)
    store.block_path("masks", "copal:accumulate", 3, 1).unlink()
    with pytest.raises(
        RunError, match=r"block-001.safetensors of run .* is missing, and the memory .* start a new run"
    ):
        loop.run(store)
    assert store.state().status == "failed" and store.finished_blocks("copal:accumulate", 3) == 2


def test_another_seed_is_another_run(undisturbed: RunStore, runs: Runs) -> None:
    config = undisturbed.config
    other = runs.create(
        RunConfig(**{**config.model_dump(), "protocol": config.protocol.model_copy(update={"seed": 1})})
    )
    loop.run(other)
    assert (other.folder / "windows/domain-00.safetensors").read_bytes() != (
        undisturbed.folder / "windows/domain-00.safetensors"
    ).read_bytes()


def test_a_finished_run_is_not_computed_again(undisturbed: RunStore) -> None:
    events: list[dict[str, Any]] = []
    loop.run(undisturbed, events.append)
    assert [event["event"] for event in events] == ["done"]


@pytest.mark.parametrize("after", [0, 1, 6, 19])
def test_cancel_stops_within_a_block_and_resume_ends_the_same(
    undisturbed: RunStore, runs: Runs, same_outcome: Same, after: int
) -> None:
    store = runs.create(undisturbed.config)
    blocks: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        if event["event"] == "block":
            blocks.append(event)

    with pytest.raises(Cancelled):
        loop.run(store, report, lambda: len(blocks) >= after)
    assert len(blocks) == after
    assert store.layers().groupby(["method", "step", "block"]).ngroups <= after + 1
    state = store.state()
    assert state.status == "cancelled" and "resume" in state.message
    assert state.progress < 1

    loop.run(store)
    assert store.state().status == "done" and store.state().progress == 1
    same_outcome(store, undisturbed)


def test_a_cancelled_run_with_dense_propagation_ends_the_same(
    runs: Runs, small_config: Callable[..., RunConfig], same_outcome: Same
) -> None:
    config, blocks = small_config(METHODS, propagate="dense"), []
    straight, stopped = runs.create(config), runs.create(config)
    loop.run(straight)
    for until in (2, 5, 6):  # stopped three times, once inside a step
        with pytest.raises(Cancelled):
            loop.run(stopped, blocks.append, lambda until=until: len(blocks) >= until)
    loop.run(stopped)
    same_outcome(stopped, straight)


def test_a_full_disk_fails_clearly_and_the_run_resumes(
    undisturbed: RunStore, runs: Runs, same_outcome: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, written = runs.create(undisturbed.config), []
    save_file = files.save_file

    def full(content: Any, path: Path, metadata: Any) -> None:
        written.append(path)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(content, path, metadata)

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(RunError, match=r"the disk is full: .*free some space, then resume"):
        loop.run(store)
    assert store.state().status == "failed" and "disk is full" in store.state().message
    assert not list(store.folder.rglob("*.tmp"))
    monkeypatch.undo()
    loop.run(store)
    same_outcome(store, undisturbed)


def test_a_disk_too_full_for_a_line_of_progress_is_a_run_error(runs: Runs, undisturbed: RunStore) -> None:
    store = runs.create(undisturbed.config)
    (store.folder / "events.jsonl").mkdir()  # cannot be appended to
    with pytest.raises(RunError, match=r"events\.jsonl could not be written"):
        store.append_event({"event": "block"})


def test_a_changed_checkpoint_is_not_mixed_in(
    make_model: Callable[..., Path], runs: Runs, small_config: Callable[..., RunConfig]
) -> None:
    folder = make_model()
    config = RunConfig(**{**small_config(["wanda:restart"]).model_dump(), "checkpoint": str(folder)})
    store, stop = runs.create(config), iter([False] * 6)
    with pytest.raises(Cancelled):
        loop.run(store, should_stop=lambda: next(stop, True))
    other = make_model(num_hidden_layers=3)
    for path in other.iterdir():
        path.replace(folder / path.name)
    with pytest.raises(RunError, match="has changed since the run began"):
        loop.run(store)


def test_groups_that_do_not_divide_are_refused_before_anything_is_computed(
    runs: Runs, small_config: Callable[..., RunConfig]
) -> None:
    from copal_core.config import Structure

    store = runs.create(small_config(["wanda:restart"], structure=Structure.parse("3:7")))
    with pytest.raises(InvalidValueError, match="3:7 needs an input dimension that 7 divides"):
        loop.run(store)
    assert store.perplexity().empty and store.windows(0) is None


def test_two_processes_do_not_compute_one_run(undisturbed: RunStore) -> None:
    with undisturbed.lock(), pytest.raises(RunError, match="computed by another process"):
        loop.run(undisturbed)


# -- branch --------------------------------------------------------------------------------------------


def test_a_branch_shares_the_past_and_completes_the_matrix(
    undisturbed: RunStore, tmp_path: Path, texts: tuple[str, ...], small_config: Callable[..., RunConfig]
) -> None:
    other = tmp_path / "letters.txt"
    other.write_text("".join(f"Dear {i * i % 997}, the ship {i} came in late.\n" for i in range(900)))
    branch = jobs.branch(undisturbed, 2, str(other))
    assert branch.domains[:2] == undisturbed.domains[:2] and len(branch.domains) == 3
    assert branch.info["branched_from"] == undisturbed.id
    computed: list[dict[str, Any]] = []
    loop.run(branch, computed.append)

    assert {event["step"] for event in computed if event["event"] == "block"} == {3}
    for method in METHODS:
        R = perplexity_matrix(branch.perplexity(), method, branch.domains)
        past = perplexity_matrix(undisturbed.perplexity(), method, undisturbed.domains)
        assert np.isfinite(R).all()
        assert np.array_equal(R[:3, :2], past[:3, :2])
        for step in (1, 2):
            for block in range(2):
                mine, theirs = (run.masks(method, step, block) for run in (branch, undisturbed))
                assert mine.keys() == theirs.keys() and len(mine) == 7
                assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)

    # and it is what the same domains from the start give
    straight = Runs(tmp_path / "runs").create(branch.config)
    loop.run(straight)
    assert straight.perplexity().equals(branch.perplexity())


def test_a_branch_is_refused_where_it_cannot_start(
    undisturbed: RunStore, runs: Runs, texts: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidValueError, match="step 4 is not in the run; choose 1 to 3"):
        jobs.branch(undisturbed, 4, "shakespeare")
    with pytest.raises(InvalidValueError, match="listed twice"):
        jobs.branch(undisturbed, 2, texts[0])
    fresh = runs.create(undisturbed.config)
    with pytest.raises(InvalidValueError, match="not finished for copal:accumulate"):
        jobs.branch(fresh, 1, "shakespeare")
    with pytest.raises(RunError, match="recorded run"):
        jobs.branch(RunStore(undisturbed.folder, recorded=True), 1, "shakespeare")


# -- kill ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """Starts processes that have imported torch already; each runs the command line, and can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["copal_core.experiment.loop", "transformers.models.llama.modeling_llama"])
    yield context


def _resume_until(run: str, moment: tuple[str, int], log: str) -> None:
    """In the child: the command line itself, which kills its own process at a counted moment.

    Args:
        run: the run's folder.
        moment: ("log", n) as soon as the event log has n bytes, cut after the n-th; ("arrays", n) with half
            of the n-th file of arrays written.
        log: receives what is printed.
    """
    import sys

    import torch

    from copal_core.cli.main import main

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "a")  # noqa: SIM115  the process ends with it
    kind, number = moment
    append, save_file, written = RunStore.append_event, files.save_file, []

    def append_and_die(store: RunStore, event: Any) -> None:
        append(store, event)
        path = store.folder / "events.jsonl"
        if path.stat().st_size >= number:
            os.truncate(path, number)
            os.kill(os.getpid(), signal.SIGKILL)

    def save_and_die(content: Any, path: Path, metadata: Any) -> None:
        save_file(content, path, metadata)
        written.append(path)
        if len(written) == number:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "log":
        RunStore.append_event = append_and_die  # type: ignore[method-assign]
    else:
        files.save_file = save_and_die
    folder = Path(run)
    sys.exit(main(["resume", folder.name, "--runs", str(folder.parent)]))


def _moments(finished: RunStore) -> list[tuple[str, int]]:
    """Ten moments of a run, the same every time: bytes of its event log, and files of arrays that it writes."""
    generator = random.Random(20240507)
    log = (finished.folder / "events.jsonl").read_bytes()
    last = log.rstrip().rindex(b"\n")  # with the last event the run is done
    arrays = len(list(finished.folder.rglob("*.safetensors")))
    positions = [("log", generator.randrange(last)) for _ in range(5)]
    return positions + [("arrays", generator.randint(1, arrays)) for _ in range(5)]


@pytest.mark.slow
def test_killed_at_ten_random_moments(
    undisturbed: RunStore, runs: Runs, processes: Any, same_outcome: Same, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    for number, moment in enumerate(_moments(undisturbed)):
        store = runs.create(undisturbed.config, run_id=f"killed-{number}")
        process = processes.Process(target=_resume_until, args=(str(store.folder), moment, str(log)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (moment, log.read_text())
        assert store.state().status == "interrupted" and store.state().progress < 1
        if moment[0] == "log":
            assert (store.folder / "events.jsonl").stat().st_size == moment[1]
        else:
            assert list(store.folder.rglob("*.tmp"))
        loop.run(store)
        assert store.state().status == "done" and not list(store.folder.rglob("*.tmp"))
        same_outcome(store, undisturbed)


def _die_inside_a_transaction(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = 1")  # changed pages reach the file before the commit
    connection.execute("BEGIN IMMEDIATE")
    for number in range(2000):
        connection.execute(
            "INSERT OR REPLACE INTO warnings VALUES ('m', 1, ?, 'q_proj', 'kind', ?)", (number, "x" * 500)
        )
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_inside_a_transaction(
    undisturbed: RunStore, runs: Runs, processes: Any, same_outcome: Same
) -> None:
    store, blocks = runs.create(undisturbed.config), []
    with pytest.raises(Cancelled):
        loop.run(store, blocks.append, lambda: len(blocks) >= 6)
    before = store.layers()
    process = processes.Process(
        target=_die_inside_a_transaction, args=(str(store.folder / "results.sqlite"),)
    )
    process.start()
    process.join()
    assert (store.folder / "results.sqlite-journal").stat().st_size > 0
    assert store.layers().equals(before)  # the reader rolls the half-done transaction back
    loop.run(store)
    same_outcome(store, undisturbed)


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "one-table"])
def test_killed_while_the_tables_were_made(undisturbed: RunStore, runs: Runs, content: bytes | None) -> None:
    store = runs.create(undisturbed.config)
    path = store.folder / "results.sqlite"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE unrelated (a)")
            connection.execute("DROP TABLE unrelated")
        connection.close()
    else:
        path.write_bytes(content)
    assert store.layers().empty and store.finished_blocks("copal:accumulate", 1) == 0


def test_files_left_by_a_kill_are_removed(undisturbed: RunStore, runs: Runs) -> None:
    store = runs.create(undisturbed.config)
    left = store.folder / "masks" / "m" / ".block-000.safetensors.abc.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    loop.run(store)
    assert not left.exists()


# -- as the app starts it ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_runs_is_watched_and_ends(undisturbed: RunStore, runs: Runs, same_outcome: Same) -> None:
    store = runs.create(undisturbed.config)
    assert store.state().status == "created"
    jobs.start(store)
    seen = set()

    def done() -> bool:
        seen.add(store.state().status)
        return store.state().status not in ("created", "running")

    wait_until(done, store.state)
    assert store.state().status == "done", (store.folder / "process.log").read_text()
    assert seen <= {"created", "running", "done"}  # never taken for interrupted
    wait_until(lambda: not store.is_locked(), "the lock is let go")
    same_outcome(store, undisturbed)
    printed = (store.folder / "process.log").read_text()
    assert "perplexity" in printed and "Traceback" not in printed
    assert json.loads(json.dumps(result_of(store)))["methods"][0]["method"] == METHODS[0]


@pytest.mark.slow
def test_a_job_cancelled_at_once_stops(undisturbed: RunStore, runs: Runs) -> None:
    """The request comes while the process still imports torch, and is not lost."""
    store = runs.create(undisturbed.config)
    jobs.start(store)
    jobs.cancel(store)
    wait_until(lambda: store.state().status not in ("created", "running"), store.state)
    assert store.state().status == "cancelled"
    assert store.layers().empty
    wait_until(lambda: not store.is_locked(), "the lock is let go")


def test_a_recorded_run_is_never_started_or_cancelled(undisturbed: RunStore) -> None:
    recorded = RunStore(undisturbed.folder, recorded=True)
    for action in (jobs.start, jobs.cancel, loop.run):
        with pytest.raises(RunError, match="recorded run"):
            action(recorded)
