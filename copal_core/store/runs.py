"""The folder of all runs: list them, open one by its id, make a new one."""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from copal_core.config import RunConfig
from copal_core.errors import InvalidValueError, RunError
from copal_core.store.folder import ID, check_id, status_of
from copal_core.store.run_store import RunStore
from copal_core.system import files, sharing, shipped
from copal_core.system.clock import now
from copal_core.system.paths import runs_root as runs_root

RECORDED = shipped.assets("recorded")


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    id: str
    title: str
    created: str
    status: str
    checkpoint: str
    domains: tuple[str, ...]
    methods: tuple[str, ...]
    recorded: bool
    note: str = ""
    group: str = ""


class Runs:
    """The runs of one root folder, and the recorded runs that ship with the product."""

    def __init__(self, root: Path | None = None, recorded: Path = RECORDED) -> None:
        self.root = root or runs_root()
        self._recorded = recorded

    def list(self) -> list[RunSummary]:
        """Newest first, recorded runs last; folders that cannot be read are left out."""
        stores = [*self._stores(self.root, False), *self._stores(self._recorded, True)]
        return [summary for store in stores if (summary := _summary(store)) is not None]

    def damaged(self) -> dict[str, str]:
        """Run id -> why its folder cannot be read, for those that `list` leaves out."""
        found = {}
        for store in self._stores(self.root, False):
            try:
                _described(store)
            except (RunError, InvalidValueError) as error:
                found[store.id] = str(error)
        return found

    def open(self, run_id: str) -> RunStore:
        """Raises RunError for an unknown run, InvalidValueError for what cannot be a run's id."""
        check_id("run", run_id)
        for root, recorded in ((self.root, False), (self._recorded, True)):
            if (root / run_id / "run.json").is_file():
                return RunStore(root / run_id, recorded)
        raise RunError(
            f"there is no run '{run_id}' in {self.root}; `show` without a run lists those that are"
        )

    def create(self, config: RunConfig, title: str = "", run_id: str | None = None) -> RunStore:
        """A new folder with the configuration. Raises RunError when it cannot be written."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        name = run_id if run_id is not None else f"{stamp}-{config.fingerprint()[:6]}-{secrets.token_hex(2)}"
        check_id("run", name)
        if (self.root / name).exists():
            raise RunError(f"run '{name}' exists already in {self.root}; choose another id")
        content = {
            "config": json.loads(config.canonical()),
            "info": {"title": title, "created": now(), "fingerprint": config.fingerprint()},
        }
        files.write_json(self.root / name / "run.json", content)
        sharing.claim(self.root / name)
        return RunStore(self.root / name)

    def _stores(self, root: Path, recorded: bool) -> Iterator[RunStore]:
        if root.is_dir():
            for folder in sorted(root.iterdir(), reverse=True):
                if ID.match(folder.name) and (folder / "run.json").is_file():
                    yield RunStore(folder, recorded)


def matching(
    runs: Iterable[RunSummary],
    status: str | None = None,
    checkpoint: str | None = None,
    domain: str | None = None,
    method: str | None = None,
    text: str = "",
) -> list[RunSummary]:
    """Those runs that meet every condition given. method: copal, or copal:accumulate; text: in title, note or id."""
    words = text.casefold().split()
    return [
        run
        for run in runs
        if status in (None, run.status)
        and checkpoint in (None, run.checkpoint)
        and (domain is None or domain in run.domains)
        and (method is None or any(name == method or _criterion(name) == method for name in run.methods))
        and all(word in f"{run.title} {run.note} {run.id}".casefold() for word in words)
    ]


def _criterion(method: str) -> str:
    return method.partition(":")[0].partition("[")[0]


def _summary(store: RunStore) -> RunSummary | None:
    try:
        return _described(store)
    except (RunError, InvalidValueError):
        return None


def _described(store: RunStore) -> RunSummary:
    info, config = store.info, store.config
    return RunSummary(
        id=store.id,
        title=str(info.get("title") or ""),
        created=str(info.get("created") or ""),
        status=status_of(store),
        checkpoint=config.checkpoint,
        domains=tuple(store.domains),
        methods=tuple(str(method) for method in config.methods),
        recorded=store.recorded,
        note=str(info.get("note") or ""),
        group=str(info.get("group") or ""),
    )
