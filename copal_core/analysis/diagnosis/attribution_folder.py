"""Attributions as folders beside the runs: what was asked, where it stands, what was measured.

    request.json   what was asked           status.json   where it stands
    tally.json     what was measured so far: an interrupted job goes on from it

It lies in <runs>/diagnoses/RUN/KEY, never in the run's own folder: a recorded run cannot be written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from copal_core.analysis.diagnosis.kept import Result, require_kept
from copal_core.analysis.diagnosis.ranking import KINDS, Tally
from copal_core.errors import InvalidValueError
from copal_core.experiment import processes
from copal_core.store.folder import JobFolder
from copal_core.store.run_store import RunStore
from copal_core.system import files, sharing
from copal_core.system.paths import runs_root


@dataclass(frozen=True)
class Request:
    """Restore the weights of `step` in the model after `final`, part by part, and measure on a domain.

    domain: its number, from 1. windows: of its evaluation windows, the first so many.
    """

    method: str
    domain: int
    step: int
    final: int
    kind: str
    windows: int


def request_for(
    store: RunStore, method: str, domain: int, kind: str = "block", windows: int | None = None
) -> Request:
    """Return the request to make of a run: the weights that domain `domain` (from 1) left, in the last model.

    Raises InvalidValueError for a value that does not fit the run, RunError when it keeps no such weights.
    """
    steps = len(store.config.domains)
    known = [str(one) for one in store.config.methods]
    if method not in known:
        raise InvalidValueError(f"method '{method}' is not in the run; its methods: {', '.join(known)}")
    if not 1 <= domain < steps:
        raise InvalidValueError(
            f"domain {domain} cannot be forgotten in a run of {steps}; choose one that others follow"
        )
    if kind not in KINDS:
        raise InvalidValueError(f"parts '{kind}' are not known; known: {', '.join(KINDS)}")
    most = store.config.protocol.evaluation.count
    if windows is not None and not 1 <= windows <= most:
        raise InvalidValueError(f"{windows} windows are not in the run's protocol; choose 1 to {most}")
    for step in (domain, steps):
        require_kept(store, Result(method, step))
    return Request(method, domain, domain, steps, kind, windows or most)


class Attribution(JobFolder):
    """One attribution's folder; made when it is first written."""

    unstarted = "none"
    again = "start it again"

    def __init__(self, store: RunStore, request: Request) -> None:
        self.store, self.request = store, request
        identity = json.dumps([asdict(replace(request, windows=0)), store.info.get("created")])
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        root = runs_root() if store.recorded else store.folder.parent
        super().__init__(root / "diagnoses" / store.id / key, "this attribution")

    @cached_property
    def names(self) -> list[str]:
        """Every part's name, in the order of the model."""
        from copal_core.checkpoints.layout import PROJECTIONS

        blocks = range(int(self.store.info["checkpoint"]["blocks"]))
        if self.request.kind == "projection":
            return list(PROJECTIONS)
        if self.request.kind == "block":
            return [f"block {block}" for block in blocks]
        return [f"block {block} {projection}" for block in blocks for projection in PROJECTIONS]

    def tally(self) -> Tally:
        """Return what was measured so far."""
        length = self.store.config.protocol.evaluation.length
        path = self.folder / "tally.json"
        if not path.is_file():
            return Tally(length - 1)
        content = files.read_json(path)
        parts = {name: [(one, two) for one, two in seen] for name, seen in content["parts"].items()}
        return Tally(length - 1, list(content["final"]), list(content["earlier"]), parts)

    def save(self, tally: Tally) -> None:
        files.write_json(self.folder / "request.json", {"run": self.store.id, **asdict(self.request)})
        content = {"final": tally.final, "earlier": tally.earlier, "parts": tally.parts}
        files.write_json(self.folder / "tally.json", content)

    def result(self) -> dict[str, Any]:
        """Return what `--json` prints; grows while it is computed."""
        tally, request = self.tally(), self.request
        seen = len(tally.final)
        tokens = max(1, seen * tally.predicted)
        return {
            "run": self.store.id,
            "method": request.method,
            "domain": self.store.domains[request.domain - 1],
            "restored_step": request.step,
            "final_step": request.final,
            "by": request.kind,
            "status": self.state().status,
            "protocol": self.store.protocol_stamp(),
            "windows": seen,
            "mean_nats": {"final": sum(tally.final) / tokens, "earlier": sum(tally.earlier) / tokens},
            "forgotten_nats": tally.forgotten,
            "parts": [asdict(one) for one in tally.ranking()],
        }


def start(attribution: Attribution) -> None:
    """Compute it, or go on with it, in a process of its own. Raises RunError when another process does."""
    store, request = attribution.store, attribution.request
    if not attribution.folder.is_dir():
        sharing.claim(attribution.folder)
    root = runs_root() if store.recorded else store.folder.parent
    command = ["attribute", store.id, "--runs", str(root)]
    command += ["--method", request.method, "--domain", str(request.domain), "--by", request.kind]
    processes.launch(attribution, command)
