"""The driver of a group on Ray: hands runs to workers, and takes what they found.

A worker that sees the runs folder (this machine, or a shared disk) computes a run in it, block by block
resumable; one that does not computes in a folder of its own and sends the finished run back. Either way a lost
worker costs at most the runs it had in hand: Ray gives them to another, and a restarted driver computes what is
not done.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from copal_core.errors import Cancelled
from copal_core.experiment.cluster.connection import Cluster, connected
from copal_core.experiment.cluster.worker import run_elsewhere, unpack
from copal_core.store.groups import Group, Member
from copal_core.system import files

_RETRIES = 3  # times a run is given to another worker when its own is lost
_POLL = 0.5  # seconds


def compute(
    group: Group, members: Iterable[Member], where: Cluster, stopping: Callable[[], bool]
) -> Generator[tuple[Member, str], None, None]:
    """Compute the members on Ray; yields each, when it has ended, with what went wrong, '' when it is done.

    Raises:
        Cancelled: soon after `stopping` says yes; the runs in hand have then been asked to stop.
        InvalidValueError: without Ray or the cluster.
    """
    with connected(where) as ray:
        yield from _Driver(ray, group, where).compute(members, stopping)


class _Driver:
    """Hands runs to workers, takes results, passes a request to stop on."""

    def __init__(self, ray: Any, group: Group, where: Cluster) -> None:
        self._ray, self._group, self._where = ray, group, where
        self._token = secrets.token_hex(16)
        files.write_text(group.folder / "token", self._token)
        self._task = ray.remote(num_cpus=where.threads, max_retries=_RETRIES)(run_elsewhere)

    def compute(
        self, members: Iterable[Member], stopping: Callable[[], bool]
    ) -> Generator[tuple[Member, str], None, None]:
        waiting = list(members)
        running: dict[Any, Member] = {}
        try:
            while waiting or running:
                if stopping():
                    raise Cancelled("the group was cancelled")
                while waiting and (not self._where.workers or len(running) < self._where.workers):
                    member = waiting.pop(0)
                    running[self._submit(member)] = member
                ready, _ = self._ray.wait(list(running), timeout=_POLL)
                for reference in ready:
                    member = running.pop(reference)
                    yield member, self._take(reference, member)
        except BaseException:
            self._call_back(running)
            raise

    def _submit(self, member: Member) -> Any:
        store = self._group.store_of(member) or self._group.create_run(member)
        store.clear_cancel()
        environment = {name: value for name, value in os.environ.items() if name.startswith("COPAL_")}
        return self._task.remote(
            str(self._group.root), str(self._group.folder / "token"), self._token, member.run, member.config,
            store.info, self._where.threads, environment,
        )  # fmt: skip

    def _take(self, reference: Any, member: Member) -> str:
        """Take what a finished task returned; returns the problem in words, '' when the run is done."""
        try:
            outcome: dict[str, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return f": a defect: {str(error.cause)[:160]}"
        except self._ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            return f" lost its worker {_RETRIES + 1} times ({reason}); resume the group"
        if outcome["folder"] is not None:
            unpack(outcome["folder"], self._group.root / member.run)
        return f": {outcome['problem']}" if outcome["problem"] else ""

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
