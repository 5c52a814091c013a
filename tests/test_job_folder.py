"""Whatever is computed by one process in a folder of its own: its state, its lock, the request to stop."""

from __future__ import annotations

import datetime
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from copal_core.analysis.diagnosis.attribution_folder import Attribution, Request
from copal_core.config import RunConfig
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment import processes
from copal_core.store.folder import STATUSES, JobFolder, RunState, record_outcome
from copal_core.store.groups import Groups
from copal_core.store.runs import Runs
from copal_core.store.variations import seeds
from copal_core.system import files

KINDS = ("run", "group", "attribution")


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(checkpoint="tiny", domains=("a.txt", "b.txt"), methods=("wanda:restart",))


@pytest.fixture(params=KINDS)
def job(request: pytest.FixtureRequest, tmp_path: Path, config: RunConfig) -> JobFolder:
    if request.param == "group":
        return Groups(tmp_path).create(seeds(config, 2))
    run = Runs(tmp_path).create(config)
    if request.param == "run":
        return run
    made = Attribution(run, Request("wanda:restart", 1, 1, 2, "block", 1))
    made.folder.mkdir(parents=True)
    return made


def write(job: JobFolder, status: str, minutes_ago: float = 0.0) -> None:
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes_ago)
    content = {"status": status, "updated": when.isoformat(timespec="seconds")}
    files.write_json(job.folder / "status.json", content)


def test_a_killed_process_is_an_interruption(job: JobFolder) -> None:
    assert job.state().status == job.unstarted
    write(job, "running")
    assert job.state().status == "interrupted" and job.again in job.state().message
    with job.lock():
        assert job.state().status == "running"
        with pytest.raises(RunError, match="being computed by another process"), job.lock():
            pass
        with pytest.raises(RunError, match="being computed already"):
            processes.launch(job, [])


def test_a_process_has_a_minute_to_begin(job: JobFolder) -> None:
    write(job, job.starting)
    assert job.state().status == job.starting
    write(job, job.starting, minutes_ago=2)
    assert job.state().status == "interrupted"
    assert job.written_state().status == job.starting


def test_one_that_ends_between_two_looks_is_not_interrupted(
    job: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(job, "running")

    def ends_meanwhile() -> bool:
        job.set_state(RunState("done"))
        return False

    monkeypatch.setattr(job, "is_locked", ends_meanwhile)
    assert job.state().status == "done"


@pytest.mark.parametrize(
    ("status", "stays"), [("starting", True), ("running", False), ("cancelled", False), (None, False)]
)
def test_a_request_made_since_the_start_stays(job: JobFolder, status: str | None, stays: bool) -> None:
    """A process imports torch for seconds, or waits for its turn, before it looks for one."""
    if status is not None:
        write(job, job.starting if status == "starting" else status)
    job.request_cancel()
    job.forget_old_cancel()
    assert job.cancel_requested() == stays


def test_a_request_to_a_living_process_is_not_forgotten_by_another(job: JobFolder) -> None:
    job.request_cancel()
    with job.lock():
        job.forget_old_cancel()
    assert job.cancel_requested()


def test_a_damaged_status_is_an_error_in_words(job: JobFolder) -> None:
    (job.folder / "status.json").write_text(json.dumps({"status": "running", "extra": 1}))
    with pytest.raises(RunError, match=f"status.json of {job.called} is damaged; {job.again}"):
        job.state()
    job.request_cancel()
    job.forget_old_cancel()
    assert not job.cancel_requested()
    job.set_state(RunState("done"))
    assert job.state().status == "done" and job.state().status in STATUSES


@pytest.mark.parametrize(
    ("raised", "seen", "status", "message"),
    [
        (None, None, "done", ""),
        (Cancelled("no matter"), Cancelled, "cancelled", "kept"),
        (RunError("the disk is full"), RunError, "failed", "the disk is full"),
        (MemoryError(), RunError, "failed", "memory is exhausted"),
        (KeyError("x"), KeyError, "failed", "a defect: KeyError: 'x'"),
        (KeyboardInterrupt(), KeyboardInterrupt, "failed", "a defect: KeyboardInterrupt"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_every_ending_is_written(
    raised: BaseException | None, seen: type[BaseException] | None, status: str, message: str
) -> None:
    ends: list[tuple[str, str]] = []

    def compute() -> None:
        with record_outcome(lambda *words: ends.append(words), "cancelled; what was finished is kept"):
            if raised is not None:
                raise raised

    with nullcontext() if seen is None else pytest.raises(seen):
        compute()
    ((found, words),) = ends
    assert found == status and message in words


def test_torchs_own_exhausted_memory_is_in_words() -> None:
    import torch

    ends: list[tuple[str, str]] = []
    with (
        pytest.raises(RunError, match="memory is exhausted"),
        record_outcome(lambda *words: ends.append(words), "cancelled"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert ends[0][0] == "failed"


@pytest.mark.parametrize(
    "text", ["", "short", "../../etc/passwd", "Upper-case", "with space", "a" * 65, "abcdef\n"]
)
def test_an_id_leads_nowhere_else(tmp_path: Path, text: str) -> None:
    for read in (Runs(tmp_path).open, Groups(tmp_path).open):
        with pytest.raises(InvalidValueError, match="(?s)id .* is not valid: 6 to 64"):
            read(text)
