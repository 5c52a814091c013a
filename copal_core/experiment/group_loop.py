"""Computing a group: its runs one after another in one process, each from where it stands to its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from copal_core.errors import Cancelled, CopalError, RunError
from copal_core.experiment import processes
from copal_core.store import shelf
from copal_core.store.folder import ACTIVE, RunState, ending, status_of
from copal_core.store.groups import DISCARDED, Group, Member, described
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files, queueing, sharing

Report = Callable[[dict[str, Any]], None]
_CANCELLED = "what was finished is kept, and resume goes on from there"


def compute(
    group: Group, report: Report = lambda event: None, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Compute what is missing of the group. A member that fails, or is cancelled by itself, holds up no other.

    report: receives the members' events, with `member` and `members` added. Raises Cancelled when the group is
    cancelled or should_stop says yes, and RunError at the end when a member failed.
    """
    with group.lock():

        def stopping() -> bool:
            return should_stop() or group.cancel_requested()

        with at_work(group) as problems:
            for index, member in enumerate(group.members, start=1):
                problems += _compute_member(group, member, index, report, stopping)


@contextmanager
def at_work(group: Group) -> Iterator[list[str]]:
    """Write what becomes of a group that is computed inside; yields the list that takes its members' problems.

    Raises RunError at the end when there are any.
    """
    group.set_state(RunState("running"))
    problems: list[str] = []
    with ending(lambda status, message: group.set_state(RunState(status, message)), _CANCELLED):
        yield problems
        if problems:
            count = f"{len(problems)} of {len(group.members)} runs did not finish"
            raise RunError(f"{count}: {'; '.join(problems[:3])}")


def _compute_member(
    group: Group, member: Member, index: int, report: Report, stopping: Callable[[], bool]
) -> list[str]:
    """One member; returns what went wrong in words, nothing when it is done."""
    from copal_core.experiment import loop  # torch, which a page that watches a group does not need

    if stopping():
        raise Cancelled("the group was cancelled")
    store = group.store_of(member) or _create(group, member)
    if status_of(store) == "done":
        return []
    store.clear_cancel()
    queueing.pass_on()

    def tell(event: dict[str, Any]) -> None:
        report({**event, "run": store.id, "member": index, "members": len(group.members)})

    try:
        loop.run(store, tell, lambda: stopping() or store.cancel_requested())
    except Cancelled:
        if stopping():
            raise
        return [f"run {store.id} was cancelled by itself"]
    except CopalError as error:
        return [f"run {store.id}: {error}"]
    _drop_memory(store)
    return []


def _create(group: Group, member: Member) -> RunStore:
    config = member.settings()
    name = group.title or ("orders of domains" if group.kind == "orders" else "repeat")
    store = Runs(group.root).create(config, f"{name}: {described(config, group.kind)}"[:120], member.run)
    store.describe(group=group.id)
    return store


def _drop_memory(store: RunStore) -> None:
    """What only a branch would need is by far the largest part of a run, and a group has many runs."""
    if store.info.get("group"):
        store.describe(memory_dropped=True)
        shutil.rmtree(store.folder / "memory", ignore_errors=True)


def start(group: Group) -> None:
    """Compute the group, or go on with it, in a process of its own. Raises RunError when one does already."""
    processes.launch(group, ["groups", group.id, "--resume", "--runs", str(group.root)])


def progress(group: Group) -> tuple[int, float]:
    """(members done, share of the whole group from 0 to 1)."""
    done, share = 0, 0.0
    for store in group.stores():
        finished = status_of(store) == "done"
        done += finished
        try:
            share += 1.0 if finished else min(1.0, max(0.0, store.state().progress))
        except RunError:
            continue
    return done, share / max(1, len(group.members))


def cancel(group: Group) -> None:
    """Ask the group to stop; it does so within one block. Harmless when it does not run."""
    group.request_cancel()


def discard(group: Group) -> None:
    """Move the group's own runs into the trash; the group is back as soon as one of them is.

    Raises RunError while the group, or one of its runs, is being computed.
    """
    sharing.require_owner(group.folder)
    if group.is_locked() or is_active(group):
        raise RunError(f"group '{group.id}' is being computed; cancel it, then delete it")
    for store in group.own():
        shelf.delete(store)
    files.touch(group.folder / DISCARDED)


def is_active(group: Group) -> bool:
    """Whether a process computes the group, or is about to."""
    return status_of(group) in ACTIVE
