"""The driver of a sweep: hands runs to workers, and takes what they found.

A worker that sees the runs folder (this machine, or a shared disk) computes a run in it, block by block
resumable; one that does not computes in a folder of its own and sends the finished run back. Either way a lost
worker costs at most the runs it had in hand: Ray gives them to another, and a restarted driver computes what is
not done.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from copal_core.errors import Cancelled, InvalidValueError
from copal_core.experiment import processes
from copal_core.experiment.cluster.connection import Cluster, connected, require_ray
from copal_core.experiment.cluster.worker import run_elsewhere, unpack
from copal_core.experiment.group_loop import at_work
from copal_core.store.folder import status_of
from copal_core.store.groups import Group, Member, described
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files, sharing

Report = Callable[[dict[str, Any]], None]
_RETRIES = 3  # times a run is given to another worker when its own is lost
_POLL = 0.5  # seconds


def compute(
    group: Group,
    cluster: Cluster,
    report: Report = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Compute what is missing of a sweep. A run that fails holds up no other.

    report: receives {"event": "finished", "run", "done", "of"} for each run, and "running" now and then. Raises
    Cancelled when the group is cancelled or should_stop says so, RunError at the end when a run failed.
    """
    with group.lock(), at_work(group) as problems, connected(cluster) as ray:
        problems += _Sweep(ray, group, cluster, report, should_stop).compute()


def start(group: Group, cluster: Cluster | None = None) -> None:
    """Compute the sweep, or go on with it where it was, in a process of its own.

    Raises RunError when one does already, InvalidValueError without Ray, and for more than one's turn on a shared
    server.
    """
    sharing.require_owner(group.folder)
    require_ray()
    known = group.folder / "cluster.json"
    where = cluster or (Cluster(**files.read_json(known)) if known.exists() else Cluster())
    if sharing.enabled() and (where.address or where.workers != 1):
        raise InvalidValueError(
            f"{where.workers} runs at the same time are more than one's turn on a shared server; use 1, and no address"
        )
    files.write_json(known, asdict(where))
    arguments = ["sweep", "--resume", group.id, "--runs", str(group.root), "--threads", str(where.threads)]
    arguments += ["--workers", str(where.workers), "--ray-address", where.address]
    processes.launch(group, arguments)


class _Sweep:
    """The driver: hands runs to workers, takes results, passes a request to stop on."""

    def __init__(
        self, ray: Any, group: Group, cluster: Cluster, report: Report, should_stop: Callable[[], bool]
    ) -> None:
        self._ray, self._group, self._cluster = ray, group, cluster
        self._report, self._should_stop = report, should_stop
        self._token = secrets.token_hex(16)
        files.write_text(group.folder / "token", self._token)
        self._task = ray.remote(num_cpus=cluster.threads, max_retries=_RETRIES)(run_elsewhere)

    def compute(self) -> list[str]:
        """What went wrong, in words; nothing when every run is done."""
        waiting = [member for member in self._group.members if not _done(self._group.store_of(member))]
        done, problems = len(self._group.members) - len(waiting), list[str]()
        running: dict[Any, Member] = {}
        try:
            while waiting or running:
                self._stop_if_asked()
                while waiting and (not self._cluster.workers or len(running) < self._cluster.workers):
                    member = waiting.pop(0)
                    running[self._submit(member)] = member
                ready, _ = self._ray.wait(list(running), timeout=_POLL)
                for reference in ready:
                    member = running.pop(reference)
                    problem = self._take(reference, member)
                    problems += [problem] if problem else []
                    done += not problem
                    self._report(
                        {"event": "finished", "run": member.run, "problem": problem, "done": done,
                         "of": len(self._group.members)}
                    )  # fmt: skip
        except BaseException:
            self._call_back(running)
            raise
        return problems

    def _submit(self, member: Member) -> Any:
        store = self._group.store_of(member) or create(self._group, member)
        store.clear_cancel()
        environment = {name: value for name, value in os.environ.items() if name.startswith("COPAL_")}
        return self._task.remote(
            str(self._group.root), str(self._group.folder / "token"), self._token, member.run, member.config,
            store.info, self._cluster.threads, environment,
        )  # fmt: skip

    def _take(self, reference: Any, member: Member) -> str:
        """A finished task; returns the problem in words, '' when the run is done."""
        try:
            outcome: dict[str, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return f"run {member.run}: a defect: {str(error.cause)[:160]}"
        except self._ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            return f"run {member.run} lost its worker {_RETRIES + 1} times ({reason}); resume the sweep"
        if outcome["folder"] is not None:
            unpack(outcome["folder"], self._group.root / member.run)
        return f"run {member.run}: {outcome['problem']}" if outcome["problem"] else ""

    def _stop_if_asked(self) -> None:
        if self._should_stop() or self._group.cancel_requested():
            raise Cancelled("the sweep was cancelled")

    def _call_back(self, running: Mapping[Any, Member]) -> None:
        """Ask every run in hand to stop within one block, wait a little, then insist."""
        for member in running.values():
            store = self._group.store_of(member)
            if store is not None:
                store.request_cancel()
        left = list(running)
        if left:
            _, left = self._ray.wait(left, num_returns=len(left), timeout=20)
        for reference in left:
            self._ray.cancel(reference, force=True)


def create(group: Group, member: Member) -> RunStore:
    """The run of a member whose turn has come."""
    config = member.settings()
    title = f"{group.title or 'sweep'}: {described(config, group.kind)}"[:120]
    store = Runs(group.root).create(config, title, member.run)
    store.describe(group=group.id)
    return store


def _done(store: RunStore | None) -> bool:
    return store is not None and status_of(store) == "done"
