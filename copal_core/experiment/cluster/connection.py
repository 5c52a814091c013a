"""The Ray cluster to use, and the connection to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from copal_core.errors import InvalidValueError


@dataclass(frozen=True)
class Cluster:
    """address: of a running cluster ('auto' finds one on this machine); empty starts one here, for this process.

    workers: runs computed at the same time; 0 for as many as the processors allow. threads: of each.
    """

    address: str = ""
    workers: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1:
            raise InvalidValueError(
                f"{self.workers} workers of {self.threads} threads are not possible; use 0 or more workers (0: as many "
                "as fit) of 1 or more threads"
            )


def available() -> bool:
    """Return True where Ray is installed, without importing it."""
    return find_spec("ray") is not None


def require_ray() -> None:
    """Raises InvalidValueError where Ray is not installed."""
    if not available():
        raise InvalidValueError(
            "computing with workers needs Ray, which is not installed: pip install -r requirements-cluster.txt"
        )


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """The ray module, connected, and disconnected at the end. Raises InvalidValueError without Ray or cluster."""
    require_ray()
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # else Ray warns about GPUs that are not asked for
    import ray

    mine = not ray.is_initialized()
    if mine:
        _connect(ray, cluster)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> None:
    given: dict[str, Any] = {"address": cluster.address}
    if not cluster.address:
        count = cluster.workers * cluster.threads or None
        given = {"address": "local", "num_cpus": count, "include_dashboard": False}
    try:
        _reach(cluster.address)
        ray.init(logging_level="warning", log_to_driver=False, **given)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise InvalidValueError(
            f"there is no Ray cluster at '{cluster.address or 'this machine'}' ({reason}); start one with `ray start "
            "--head`, or leave the address out"
        ) from None


def _reach(address: str) -> None:
    """Raises OSError where nobody answers at 'host:port': Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
