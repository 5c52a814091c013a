"""Runs as things: named, noted, weighed, deleted and taken back, undone, filtered."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from copal_core.cli.main import main
from copal_core.config import RunConfig
from copal_core.errors import InvalidValueError, RunError
from copal_core.experiment import loop, processes
from copal_core.store import shelf
from copal_core.store.run_store import RunState, RunStore
from copal_core.store.runs import Runs, matching


@pytest.fixture
def store(runs: Runs, small_config: Callable[..., RunConfig]) -> RunStore:
    """A run that has not been computed."""
    return runs.create(small_config(["wanda:restart"]), title="First")


@pytest.fixture
def computed(runs: Runs, small_config: Callable[..., RunConfig]) -> RunStore:
    """A finished run of two methods over three domains."""
    store = runs.create(small_config(["copal:accumulate", "sparsegpt:sequential"], domains=3), title="Done")
    loop.run(store)
    return store


def test_a_title_and_a_note_are_kept_and_bounded(store: RunStore) -> None:
    shelf.rename(store, "  Another\n name ")
    shelf.note(store, "Seen: <b>nothing</b>\nof note")
    again = RunStore(store.folder)
    assert again.info["title"] == "Another name"
    assert again.info["note"] == "Seen: <b>nothing</b>\nof note"
    with pytest.raises(InvalidValueError, match="at most 120"):
        shelf.rename(store, "x" * 121)
    with pytest.raises(InvalidValueError, match="at most 4000"):
        shelf.note(store, "x" * 4001)


def test_a_deleted_run_comes_back_as_it_was(runs: Runs, computed: RunStore) -> None:
    before = sorted(path.relative_to(computed.folder) for path in computed.folder.rglob("*"))
    numbers = computed.perplexity()
    shelf.delete(computed)
    assert runs.list() == []
    with pytest.raises(RunError, match="there is no run"):
        runs.open(computed.id)
    assert [run.id for run in shelf.trashed(runs.root)] == [computed.id]
    back = shelf.restore(runs.root, computed.id)
    assert sorted(path.relative_to(back.folder) for path in back.folder.rglob("*")) == before
    assert back.perplexity().equals(numbers)
    assert back.state().status == "done"
    assert shelf.trashed(runs.root) == []


def test_emptying_the_trash_is_for_good(runs: Runs, store: RunStore) -> None:
    shelf.delete(store)
    assert shelf.empty_trash(runs.root) > 0
    assert shelf.trashed(runs.root) == []
    with pytest.raises(RunError, match="there is no run"):
        shelf.restore(runs.root, store.id)
    assert shelf.empty_trash(runs.root) == 0


def test_what_may_not_be_deleted(runs: Runs, store: RunStore) -> None:
    with store.lock(), pytest.raises(RunError, match="cancel it, then delete"):
        shelf.delete(store)
    store.set_state(RunState(status="created"))  # a process is starting
    with pytest.raises(RunError, match="cancel it, then delete"):
        shelf.delete(store)
    store.set_state(RunState(status="cancelled"))
    recorded = RunStore(store.folder, recorded=True)
    for action in (
        shelf.delete,
        processes.undo,
        lambda run: shelf.rename(run, "x"),
        lambda run: shelf.note(run, "x"),
    ):
        with pytest.raises(RunError, match="recorded"):
            action(recorded)
    shelf.delete(store)


@pytest.mark.parametrize("name", ["../../etc", "a", "..", "trash/../x", "UPPER-CASE", ""])
def test_nothing_outside_the_trash_is_restored(runs: Runs, name: str) -> None:
    with pytest.raises((InvalidValueError, RunError)):
        shelf.restore(runs.root, name)


def test_a_restored_run_takes_nobodys_place(runs: Runs, store: RunStore) -> None:
    shelf.delete(store)
    runs.create(store_config(runs, store), run_id=store.id)
    with pytest.raises(RunError, match="another run"):
        shelf.restore(runs.root, store.id)


def store_config(runs: Runs, store: RunStore) -> RunConfig:
    """The configuration of a run that lies in the trash."""
    return RunStore(runs.root / shelf.TRASH / store.id).config


def test_undoing_a_domain_keeps_the_past_and_the_original(
    computed: RunStore,
    same_outcome: Callable[[RunStore, RunStore], None],
    small_config: Callable[..., RunConfig],
) -> None:
    before = computed.perplexity()
    undone = processes.undo(computed)
    assert undone.state().status == "done"
    assert undone.config.domains == computed.config.domains[:2]
    assert undone.info["undone_from"] == computed.id
    assert "without" in undone.info["title"]
    alone = Runs(computed.folder.parent).create(
        small_config(["copal:accumulate", "sparsegpt:sequential"], domains=2)
    )
    loop.run(alone)
    same_outcome(undone, alone)
    assert computed.perplexity().equals(before)
    loop.run(undone)  # there is nothing left to compute, and it says so
    assert undone.state().status == "done"
    with pytest.raises(InvalidValueError, match="one domain"):
        processes.undo(processes.undo(undone))


def test_shared_bytes_are_counted_once(computed: RunStore) -> None:
    alone = shelf.disk_use([computed.folder])
    undone = processes.undo(computed)
    each = shelf.disk_use([undone.folder])
    both = shelf.disk_use([computed.folder, undone.folder])
    assert alone < both < alone + each


def test_filters_meet(runs: Runs, small_config: Callable[..., RunConfig]) -> None:
    first = runs.create(small_config(["copal:accumulate"]), title="Alpha")
    second = runs.create(small_config(["wanda:restart", "magnitude:joint"], domains=3), title="Beta")
    shelf.note(second, "about drama")
    first.set_state(RunState(status="done"))
    known = runs.list()

    def ids(**filters: str) -> set[str]:
        return {run.id for run in matching(known, **filters)}

    assert ids(status="done") == {first.id}
    assert ids(method="wanda") == ids(method="wanda:restart") == {second.id}
    assert ids(method="wan") == set()
    assert ids(text="DRAMA beta") == {second.id}
    assert ids(domain=second.domains[2]) == {second.id}
    assert ids(checkpoint=first.config.checkpoint) == {first.id, second.id}
    assert ids(text="alpha", status="created") == set()


def test_the_command_line_does_the_same(
    runs: Runs, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> dict:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert answer("rename", store.id, "New name") == {"run": store.id, "title": "New name"}
    assert answer("note", store.id, "x")["note"] == "x"
    found = [row for row in answer("runs", "--text", "new name")["runs"] if not row["recorded"]]
    assert [row["run"] for row in found] == [store.id]
    assert found[0]["bytes"] > 0
    assert answer("delete", store.id)["deleted"]
    assert [row["run"] for row in answer("trash")["runs"]] == [store.id]
    assert answer("restore", store.id)["restored"]
    answer("delete", store.id)
    assert answer("trash", "--empty")["deleted"] == 1
    assert main(["restore", store.id]) == 2
    assert "there is no run" in capsys.readouterr().err
