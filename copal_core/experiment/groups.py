"""Computing a group: here, one run after another, or on Ray, several at the same time; each from where it stands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from copal_core.errors import Cancelled, CopalError, InvalidValueError, RunError
from copal_core.experiment import processes
from copal_core.experiment.cluster import Cluster, available, require_ray
from copal_core.store import shelf
from copal_core.store.folder import ACTIVE, RunState, record_outcome, status_of
from copal_core.store.groups import DISCARDED, Group, Member
from copal_core.system import files, queueing, sharing

Report = Callable[[dict[str, Any]], None]
_PLACE = "cluster.json"
_CANCELLED = "what was finished is kept, and resume goes on from there"


def compute(
    group: Group,
    where: Cluster | None = None,
    report: Report = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Compute what is missing of the group. A member that fails, or is cancelled by itself, holds up no other.

    Args:
        where: the Ray cluster that computes several runs at the same time; None for this process, one after another.
        report: receives {"event": "finished", "run", "problem", "done", "of"} for each run that has ended; computed
            here, the runs' own events besides, with `run`, `member` and `members` added.
        should_stop: asked again and again; the group is cancelled when it says yes.

    Raises:
        Cancelled: when the group is cancelled.
        InvalidValueError: where a cluster is given and Ray, or the cluster, is not there.
        RunError: at the end, when a member did not finish.
    """

    def stopping() -> bool:
        return should_stop() or group.cancel_requested()

    with group.lock():
        group.set_state(RunState("running"))
        with record_outcome(lambda status, message: group.set_state(RunState(status, message)), _CANCELLED):
            waiting = [member for member in group.members if not _is_done(group, member)]
            if where is None:
                ended = _here(group, waiting, report, stopping)
            else:
                files.write_json(group.folder / _PLACE, asdict(where))
                from copal_core.experiment.cluster import driver

                ended = driver.compute(group, waiting, where, stopping)
            done, problems = len(group.members) - len(waiting), list[str]()
            with closing(ended):
                for member, problem in ended:
                    problems += [f"run {member.run}{problem}"] if problem else []
                    done += not problem
                    report(
                        {
                            "event": "finished",
                            "run": member.run,
                            "problem": problems[-1] if problem else "",
                            "done": done,
                            "of": len(group.members),
                        }
                    )
            if problems:
                count = f"{len(problems)} of {len(group.members)} runs did not finish"
                raise RunError(f"{count}: {'; '.join(problems[:3])}")


def _here(
    group: Group, members: Sequence[Member], report: Report, stopping: Callable[[], bool]
) -> Generator[tuple[Member, str], None, None]:
    """Compute the members in this process; yields each with what went wrong, '' when it is done."""
    for member in members:
        if stopping():
            raise Cancelled("the group was cancelled")
        yield member, "" if _is_done(group, member) else _compute_member(group, member, report, stopping)


def _compute_member(group: Group, member: Member, report: Report, stopping: Callable[[], bool]) -> str:
    """Compute one member; returns what went wrong, '' when it is done."""
    from copal_core.experiment import loop  # torch, which a page that watches a group does not need

    store = group.store_of(member) or group.create_run(member)
    store.clear_cancel()
    queueing.pass_on()
    place = {"run": store.id, "member": group.members.index(member) + 1, "members": len(group.members)}
    try:
        loop.run(
            store, lambda event: report({**event, **place}), lambda: stopping() or store.cancel_requested()
        )
    except Cancelled:
        if stopping():
            raise
        return " was cancelled by itself"
    except CopalError as error:
        return f": {error}"
    if store.info.get("group"):
        store.drop_memory()
    return ""


def start(group: Group, where: Cluster | None = None) -> None:
    """Compute the group, or go on with it where it was, in a process of its own.

    Args:
        where: the Ray cluster; None for the one that computed the group before, or for one run after another here.

    Raises:
        InvalidValueError: for a cluster without Ray, and for more than one's turn on a shared server.
        RunError: when a process computes the group already, or it is another person's.
    """
    sharing.require_owner(group.folder)
    where = where or place_of(group)
    arguments = ["groups", group.id, "--resume", "--runs", str(group.root)]
    if where is not None:
        require_ray()
        if sharing.enabled() and (where.address or where.workers != 1):
            raise InvalidValueError(
                f"{where.workers} runs at the same time are more than one's turn on a shared server; use 1, and no "
                "address"
            )
        arguments += ["--workers", str(where.workers), "--threads", str(where.threads)]
        arguments += ["--ray-address", where.address]
    processes.launch(group, arguments)


def place_of(group: Group) -> Cluster | None:
    """The Ray cluster that computed the group before; None where none did, or Ray is not installed any more."""
    known = group.folder / _PLACE
    return Cluster(**files.read_json(known)) if known.exists() and available() else None


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
    """Tell whether a process computes the group, or is about to."""
    return status_of(group) in ACTIVE


def _is_done(group: Group, member: Member) -> bool:
    store = group.store_of(member)
    return store is not None and status_of(store) == "done"
