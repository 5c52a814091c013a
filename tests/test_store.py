"""The run store: nothing leaves its root, and damage is said clearly."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copal_core.analysis.results import result_of
from copal_core.config import Method, RunConfig
from copal_core.errors import CopalError, InvalidValueError, RunError
from copal_core.experiment import loop
from copal_core.store.records import PerplexityRecord
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs

NAMED = [
    "..",
    "../secret",
    "/etc/passwd",
    "a/../../b",
    "abcdef\n",
    "ABCDEF",
    "-abcdef",
    "abcde",
    "a" * 65,
    "é" * 8,
]
HOSTILE = st.text(max_size=80) | st.text("./\\-~abc0%\n\0", max_size=70) | st.sampled_from(NAMED)


@pytest.fixture
def store(runs: Runs, small_config: Callable[..., RunConfig]) -> RunStore:
    return runs.create(small_config(["copal:accumulate"]), "a title")


@pytest.fixture(scope="module")
def _done(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    made = Runs(tmp_path_factory.mktemp("done")).create(
        small_config(["sparsegpt:accumulate", "wanda:sequential"])
    )
    loop.run(made)
    return made


@pytest.fixture
def done(_done: RunStore, tmp_path: Path) -> RunStore:
    """A finished run that may be damaged."""
    return RunStore(Path(shutil.copytree(_done.folder, tmp_path / "copies" / _done.id)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HOSTILE)
def test_no_id_leaves_the_root(tmp_path: Path, small_config: Callable[..., RunConfig], run_id: str) -> None:
    root = tmp_path / "outer" / "runs"
    root.mkdir(parents=True, exist_ok=True)
    (tmp_path / "outer" / "secret").mkdir(exist_ok=True)
    (tmp_path / "outer" / "secret" / "run.json").write_text("{}")
    runs = Runs(root, recorded=root)
    for action in (runs.open, lambda name: runs.create(small_config(["wanda:joint"]), run_id=name)):
        try:
            folder = action(run_id).folder
        except CopalError:
            continue
        assert folder.resolve().parent == root.resolve()
        assert folder.name == run_id.strip() == run_id.lower()
    assert sorted(os.listdir(tmp_path / "outer")) == ["runs", "secret"]


@given(st.text(max_size=60), st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=2))
def test_no_method_leaves_the_run(name: str, options: dict[str, str]) -> None:
    slug = Method(name=name, strategy="restart", options=options).slug
    assert "/" not in slug and "\\" not in slug and slug not in (".", "..")


def test_unknown_and_taken_ids(runs: Runs, store: RunStore) -> None:
    with pytest.raises(RunError, match="there is no run 'not-there'"):
        runs.open("not-there")
    with pytest.raises(RunError, match="exists already"):
        runs.create(store.config, run_id=store.id)


def test_a_run_is_listed_as_it_is(runs: Runs, store: RunStore) -> None:
    (summary,) = runs.list()
    assert (summary.id, summary.title, summary.status, summary.recorded) == (
        store.id,
        "a title",
        "created",
        False,
    )
    assert summary.methods == ("copal:accumulate",)
    assert runs.open(store.id).config == store.config


def test_recorded_runs_are_listed_last_and_are_read_only(done: RunStore, runs: Runs, tmp_path: Path) -> None:
    both = Runs(runs.root, recorded=done.folder.parent)
    mine = both.create(done.config)
    assert [(s.id, s.recorded) for s in both.list()] == [(mine.id, False), (done.id, True)]
    recorded = both.open(done.id)
    before = {path: path.stat().st_mtime_ns for path in done.folder.rglob("*")}
    assert recorded.state().status == "done" and not recorded.is_locked()
    assert len(recorded.layers()) == 2 * 2 * 14 and result_of(recorded)["methods"]
    assert recorded.tiles("wanda:sequential", 1, 0, "q_proj")["kept"].shape == (8, 8)
    with pytest.raises(RunError, match="recorded run"), recorded.lock():
        pass
    assert {path: path.stat().st_mtime_ns for path in done.folder.rglob("*")} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: a read-only folder does not stop it")
def test_a_recorded_run_is_read_from_a_folder_that_cannot_be_written(done: RunStore) -> None:
    done.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert not RunStore(done.folder, recorded=True).layers().empty
    finally:
        done.folder.chmod(stat.S_IRWXU)


def test_a_line_cut_short_is_passed_over(store: RunStore) -> None:
    store.append_event({"event": "block", "block": 0})
    with open(store.folder / "events.jsonl", "ab") as file:
        file.write('{"event": "block", "domain": "é'.encode()[:-1])  # killed inside a letter
    assert [event["block"] for event in store.events()] == [0]
    store.append_event({"event": "block", "block": 1})
    assert [event["block"] for event in store.events()] == [0, 1]
    assert store.events(offset=1)[0]["block"] == 1


def test_every_change_of_the_records_is_seen_within_one_tick_of_the_clock(store: RunStore) -> None:
    assert store.records.version() == (0, 0)
    seen = []
    for step in range(1, 6):
        store.add([PerplexityRecord("wanda:restart", step, "a", 2.0, 0.7, 10, 0)])
        os.utime(store.folder / "results.sqlite", ns=(0, 0))  # a clock that stands still
        seen.append(store.records.version())
    assert len(set(seen)) == 5
    assert store.records.version() == seen[-1]


def test_interrupted_is_running_without_a_process(store: RunStore) -> None:
    store.set_state(RunState("running", progress=0.4))
    assert store.state().status == "interrupted" and "resume" in store.state().message
    with store.lock():
        assert RunStore(store.folder).state().status == "running"
    store.set_state(RunState("done"))
    assert store.state().status == "done"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"config": 5}', '{"config": {"format": 99}}', "\xff"]
)
def test_a_damaged_run_json_is_an_error_in_words(store: RunStore, runs: Runs, content: str) -> None:
    (store.folder / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CopalError, match="run"):
        _ = runs.open(store.id).config
    assert runs.list() == []


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", '{"status": "done", "colour": 1}', '{"updated": "x"}']
)
def test_a_damaged_status_is_a_run_error(store: RunStore, content: str) -> None:
    (store.folder / "status.json").write_text(content)
    with pytest.raises(RunError, match="damaged"):
        store.state()


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_damaged_arrays_are_a_run_error(done: RunStore, damage: str) -> None:
    path = done.block_path("masks", "wanda:sequential", 1, 0)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"x" * 200)
    with pytest.raises(RunError, match=r"block-000\.safetensors cannot be read"):
        done.masks("wanda:sequential", 1, 0)


def test_damaged_records_are_a_run_error(done: RunStore) -> None:
    path = done.folder / "results.sqlite"
    path.write_bytes(b"not a database" + path.read_bytes()[14:])
    for action in (done.layers, done.perplexity, lambda: result_of(done), lambda: loop.run(done)):
        with pytest.raises(RunError, match=r"results\.sqlite"):
            action()


def test_a_run_with_a_damaged_status_resumes(done: RunStore) -> None:
    (done.folder / "status.json").write_text("{")
    loop.run(done)
    assert done.state().status == "done"


def test_masks_go_to_bits_and_back(store: RunStore) -> None:
    generator = np.random.default_rng(0)
    kept = {"q_proj": generator.random((5, 13)) < 0.5, "down_proj": generator.random((3, 8)) < 0.5}
    store.save_masks("wanda:joint", 1, 0, kept)
    found = store.masks("wanda:joint", 1, 0)
    assert found.keys() == kept.keys()
    assert all(np.array_equal(found[name], mask) and found[name].dtype == bool for name, mask in kept.items())


def test_records_replace_those_with_the_same_key(store: RunStore) -> None:
    for value in (5.0, 7.0):
        store.add([PerplexityRecord("dense", 0, "code", value, 1.0, 10, 0)])
    assert store.perplexity()["perplexity"].tolist() == [7.0]


def test_records_are_added_all_or_none(store: RunStore) -> None:
    good = PerplexityRecord("dense", 0, "code", 5.0, 1.0, 10, 0)
    bad = PerplexityRecord("dense", 0, {"not": "text"}, 5.0, 1.0, 10, 0)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="could not be written"):
        store.add([good, bad])
    assert store.perplexity().empty


def test_tables_have_their_columns_before_anything_is_written(store: RunStore) -> None:
    assert list(store.perplexity().columns)[:4] == ["method", "step", "domain", "perplexity"]
    assert store.layers().empty and store.seconds().empty and store.warnings().empty
    assert result_of(store)["methods"][0]["perplexity"] == [[None, None], [None, None]]


def test_the_result_has_the_keys_that_were_promised(done: RunStore) -> None:
    result = result_of(done)
    assert list(result) == ["run", "checkpoint", "protocol", "domains", "dense", "methods"]
    assert result == json.loads(json.dumps(result, allow_nan=False))
    assert [d["name"] for d in result["domains"]] == list(result["dense"]) == done.domains
    for method in result["methods"]:
        assert list(method) == [
            "method", "perplexity", "bwt", "average_perplexity", "sparsity", "stasis", "mask_change", "seconds",
        ]  # fmt: skip
        rows = method["perplexity"]
        assert [len(row) for row in rows] == [2, 2]
        assert method["bwt"] == pytest.approx(rows[1][0] - rows[0][0])
        assert method["average_perplexity"] == pytest.approx(sum(rows[1]) / 2)
        assert method["sparsity"] == 0.5
        assert len(method["stasis"]) == len(method["mask_change"]) == 1
        assert {"calibrate", "select", "propagate", "record", "evaluate"} <= method["seconds"].keys()


def test_every_perplexity_has_its_protocol(done: RunStore) -> None:
    stamp = done.protocol_stamp()
    for part in ("calibration 3×24", "evaluation 2×24", "seed 0", "float32", done.info["created"][:10]):
        assert part in stamp


def test_a_folder_that_cannot_be_made_is_a_run_error(
    tmp_path: Path, small_config: Callable[..., RunConfig]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not be written"):
        Runs(tmp_path / "file" / "runs").create(small_config(["wanda:joint"]))


def test_an_id_with_a_line_end_is_refused(runs: Runs) -> None:
    with pytest.raises(InvalidValueError, match="not valid"):
        runs.open("abcdef\n")
