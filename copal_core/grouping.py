"""Computing a group: its runs one after another in one process, each from where it stands to its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from copal_core import files, jobs, sharing, shelf, turns
from copal_core.errors import Cancelled, CopalError, RunError
from copal_core.groups import ACTIVE, DISCARDED, Group, Member, described
from copal_core.runs import Runs
from copal_core.store import RunStore

Report = Callable[[dict[str, Any]], None]


def compute(
    group: Group, report: Report = lambda event: None, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Compute what is missing of the group. A member that fails, or is cancelled by itself, holds up no other.

    report: receives the members' events, with `member` and `members` added. Raises Cancelled when the group is
    cancelled or should_stop says yes, and RunError at the end when a member failed.
    """
    with group.lock():
        group.set_state("running")
        problems: list[str] = []

        def stopping() -> bool:
            return should_stop() or group.cancel_requested()

        try:
            for index, member in enumerate(group.members, start=1):
                problems += _compute_member(group, member, index, report, stopping)
        except Cancelled:
            group.set_state(
                "cancelled", "cancelled; what was finished is kept, and resume goes on from there"
            )
            raise
        except BaseException as error:
            group.set_state("failed", f"a defect: {type(error).__name__}: {error}")
            raise
        group.set_state("failed" if problems else "done", "; ".join(problems[:3]))
    if problems:
        raise RunError(f"{len(problems)} of {len(group.members)} runs did not finish: {problems[0]}")


def _compute_member(
    group: Group, member: Member, index: int, report: Report, stopping: Callable[[], bool]
) -> list[str]:
    """One member; returns what went wrong in words, nothing when it is done."""
    from copal_core import experiment  # torch, which a page that watches a group does not need

    if stopping():
        raise Cancelled("the group was cancelled")
    store = group.store_of(member) or _create(group, member, index)
    if _finished(store):
        return []
    store.clear_cancel()
    turns.pass_on()

    def tell(event: dict[str, Any]) -> None:
        report({**event, "run": store.id, "member": index, "members": len(group.members)})

    try:
        experiment.run(store, tell, lambda: stopping() or store.cancel_requested())
    except Cancelled:
        if stopping():
            raise
        return [f"run {store.id} was cancelled by itself"]
    except CopalError as error:
        return [f"run {store.id}: {error}"]
    _drop_memory(store)
    return []


def _create(group: Group, member: Member, index: int) -> RunStore:
    config = member.settings()
    name = group.title or ("orders of domains" if group.kind == "orders" else "repeat")
    store = Runs(group.root).create(config, f"{name}: {described(config, group.kind)}"[:120], member.run)
    store.describe(group=group.id, member=index)
    return store


def _finished(store: RunStore) -> bool:
    try:
        return store.state().status == "done"
    except RunError:
        return False


def _drop_memory(store: RunStore) -> None:
    """What only a branch would need is by far the largest part of a run, and a group has many runs."""
    if store.info.get("group"):
        store.describe(memory_dropped=True)
        shutil.rmtree(store.folder / "memory", ignore_errors=True)


def start(group: Group) -> None:
    """Compute the group, or go on with it, in a process of its own. Raises RunError when one does already."""
    sharing.require_owner(group.folder)
    if group.is_locked():
        raise RunError(f"group '{group.id}' is being computed already; watch it or cancel it")
    group.clear_cancel()
    group.set_state("starting")
    jobs.spawn(["groups", group.id, "--resume", "--runs", str(group.root)], group.folder / "process.log")


def progress(group: Group) -> tuple[int, float]:
    """(members done, share of the whole group from 0 to 1)."""
    done, share = 0, 0.0
    for store in group.stores():
        finished = _finished(store)
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
    return group.state().status in ACTIVE
