"""Groups: runs that differ in something, such as the seed, the order of the domains, or all that a grid combines.

A group is a file, `groups/ID/group.json`, that lists its members before they are computed; each member is a
run like any other, made when its turn comes, and resumable by itself.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copal_core.config import RunConfig
from copal_core.errors import RunError
from copal_core.store import variations
from copal_core.store.folder import JobFolder, check_id, status_of
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files, sharing
from copal_core.system.clock import now

DISCARDED = "discarded"


@dataclass(frozen=True)
class Member:
    """One run of a group: its id, and its configuration as canonical JSON."""

    run: str
    config: str

    def settings(self) -> RunConfig:
        return RunConfig.from_json(self.config)


class Group(JobFolder):
    """One group's folder.

    varies: the settings in which its members differ, such as ('structure', 'seed').
    """

    unstarted = "waiting"
    starting = "starting"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f"group '{folder.name}'")
        self.id = folder.name
        content = files.read_json(folder / "group.json")
        try:
            self.title, self.created = str(content["title"]), str(content["created"])
            self.base = str(content["base"])
            self.members = tuple(Member(**member) for member in content["members"])
            varies = content.get("varies")  # None in groups of earlier versions
        except (KeyError, TypeError):
            raise RunError(f"group.json of group '{self.id}' is damaged") from None
        if varies is None:
            varies = variations.varying(member.settings() for member in self.members)
        self.varies = tuple(map(str, varies))

    @property
    def kind(self) -> str:
        """'orders' where only the order varies, 'repeat' for seeds and calibration sizes, and else 'sweep'."""
        return _kind(self.varies)

    @property
    def sampled(self) -> str:
        """The setting over which outcomes are averaged: 'seed', or 'order' where no seed varies but orders do."""
        return "order" if "order" in self.varies and "seed" not in self.varies else "seed"

    def describe(self, member: Member) -> str:
        """Say what sets a member apart: 'seed 3', or its domains in order."""
        return variations.in_words(member.settings(), self.varies or ("method", "structure", "seed"))

    @property
    def root(self) -> Path:
        """The folder of the runs."""
        return self.folder.parent.parent

    def store_of(self, member: Member) -> RunStore | None:
        """The member's run, or None before its turn came, or after it was deleted."""
        try:
            return Runs(self.root).open(member.run)
        except RunError:
            return None

    def create_run(self, member: Member) -> RunStore:
        """The run of a member whose turn has come."""
        title = f"{self.title or self.kind}: {self.describe(member)}"[:120]
        store = Runs(self.root).create(member.settings(), title, member.run)
        store.describe(group=self.id)
        return store

    def stores(self) -> list[RunStore]:
        """The members that have begun, in order."""
        return [store for member in self.members if (store := self.store_of(member)) is not None]

    def finished(self) -> list[RunStore]:
        """The members that are done, in order."""
        return [store for store in self.stores() if status_of(store) == "done"]

    def own(self) -> list[RunStore]:
        """The members that were made for the group; its base, which may be one of them, was not."""
        return [store for store in self.stores() if store.info.get("group") == self.id]


class Groups:
    """The groups of one root folder of runs."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = Runs(root).root

    def list(self) -> list[Group]:
        """Newest first; those that cannot be read are left out."""
        folder, found = self.root / "groups", []
        for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
            try:
                group = Group(path)
            except RunError:
                continue
            if not (path / DISCARDED).exists() or group.own():  # a run taken out of the trash brings it back
                found.append(group)
        return found

    def open(self, group_id: str) -> Group:
        """Raises RunError for an unknown group, InvalidValueError for what cannot be a group's id."""
        check_id("group", group_id)
        folder = self.root / "groups" / group_id
        if not (folder / "group.json").is_file():
            raise RunError(f"there is no group '{group_id}' in {self.root}; `groups` lists those that are")
        return Group(folder)

    def create(self, configs: Sequence[RunConfig], base: RunStore | None = None, title: str = "") -> Group:
        """Create a group of runs with these configurations. A finished `base` stands for its own configuration."""
        variations.check_size(len(configs))
        varies = variations.varying(configs)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        group_id = f"{stamp}-{_kind(varies)}-{secrets.token_hex(2)}"
        members = []
        for index, config in enumerate(configs, start=1):
            run = f"{group_id}-{index:02d}"
            if base is not None and _stands_for(base, config):
                run = base.id
            members.append({"run": run, "config": config.canonical()})
        content = {
            "title": " ".join(title.split())[:120],
            "created": now(),
            "base": base.id if base is not None else "",
            "varies": varies,
            "members": members,
        }
        folder = self.root / "groups" / group_id
        files.write_json(folder / "group.json", content)
        sharing.claim(folder)
        return Group(folder)


def _kind(varies: Sequence[str]) -> str:
    if list(varies) == ["order"]:
        return "orders"
    return "repeat" if varies and {"seed", "calibration"}.issuperset(varies) else "sweep"


def _stands_for(base: RunStore, config: RunConfig) -> bool:
    """Tell whether `base` is this very run, computed here and finished."""
    return not base.recorded and status_of(base) == "done" and base.config.canonical() == config.canonical()


def summary(group: Group) -> dict[str, Any]:
    """The group as plain JSON values."""
    stores = {member.run: group.store_of(member) for member in group.members}
    return {
        "group": group.id,
        "kind": group.kind,
        "title": group.title,
        "status": group.state().status,
        "message": group.state().message,
        "runs": [
            {
                "run": member.run,
                "what": group.describe(member),
                "status": status_of(store) if (store := stores[member.run]) is not None else "waiting",
            }
            for member in group.members
        ],
    }
