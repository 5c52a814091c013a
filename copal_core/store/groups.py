"""Groups of runs that differ in one thing (the seed, the calibration size, the order of the domains), or in many.

A group is a file, `groups/ID/group.json`, that lists its members before they are computed; each member is a
run like any other, made when its turn comes, and resumable by itself.
"""

from __future__ import annotations

import datetime
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.errors import InvalidValueError, RunError
from copal_core.methods import amounts
from copal_core.store.folder import JobFolder, check_id, status_of
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import files, sharing
from copal_core.system.clock import now

KINDS = ("repeat", "orders", "sweep")
DISCARDED = "discarded"
MOST = 64  # runs of one group
_SEEDS = 2**31


@dataclass(frozen=True)
class Member:
    """One run of a group: its id, and its configuration as canonical JSON."""

    run: str
    config: str

    def settings(self) -> RunConfig:
        return RunConfig.from_json(self.config)


def seeds(config: RunConfig, count: int, calibrations: Sequence[Windows] = ()) -> list[RunConfig]:
    """`count` seeds from the configuration's own on, for each calibration size. Raises InvalidValueError."""
    if count < 1:
        raise InvalidValueError(f"{count} seeds are none; use at least 1, and 5 to see a spread")
    sizes = list(dict.fromkeys(calibrations)) or [config.protocol.calibration]
    if count * len(sizes) < 2:
        raise InvalidValueError("one seed with one calibration size is one run; ask for more of either")
    _bounded(count * len(sizes))
    found = []
    for size in sizes:
        for step in range(count):
            changed = {"calibration": size, "seed": (config.protocol.seed + step) % _SEEDS}
            found.append(_changed(config, protocol=Protocol(**{**dict(config.protocol), **changed})))
    return found


def orders(config: RunConfig, count: int | None = None, seed: int = 0) -> list[RunConfig]:
    """All permutations of the domains, or `count` random ones; the configuration's own order comes first.

    Raises InvalidValueError for a single domain, or more permutations than a group may have.
    """
    domains = config.domains
    if len(domains) < 2:
        raise InvalidValueError("one domain has one order; choose at least two domains")
    possible = math.factorial(len(domains))
    wanted = possible if count is None else min(count, possible)
    if wanted < 2:
        raise InvalidValueError(f"{count} orders are too few to compare; use at least 2")
    _bounded(wanted)
    if wanted == possible:
        found = list(permutations(domains))
    else:
        generator, found = random.Random(seed), [domains]
        while len(found) < wanted:
            drawn = tuple(generator.sample(domains, len(domains)))
            if drawn not in found:
                found.append(drawn)
    return [_changed(config, domains=order) for order in found]


def _bounded(count: int) -> None:
    if count > MOST:
        raise InvalidValueError(f"a group of {count} runs is too large; use at most {MOST}")


def _changed(config: RunConfig, **values: Any) -> RunConfig:
    return RunConfig(**{**dict(config), **values})


class Group(JobFolder):
    """One group's folder."""

    unstarted = "waiting"
    starting = "starting"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f"group '{folder.name}'")
        self.id = folder.name
        content = files.read_json(folder / "group.json")
        try:
            self.kind, self.title = str(content["kind"]), str(content["title"])
            self.created, self.base = str(content["created"]), str(content["base"])
            self.members = tuple(Member(**member) for member in content["members"])
        except (KeyError, TypeError):
            raise RunError(f"group.json of group '{self.id}' is damaged") from None

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

    def create(
        self, kind: str, configs: Sequence[RunConfig], base: RunStore | None = None, title: str = ""
    ) -> Group:
        """A new group of runs with these configurations. A finished `base` stands for its own configuration."""
        if kind not in KINDS:
            raise InvalidValueError(f"group kind '{kind}' is not known; use {', '.join(KINDS)}")
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        group_id = f"{stamp}-{kind}-{secrets.token_hex(2)}"
        members = []
        for index, config in enumerate(configs, start=1):
            run = f"{group_id}-{index:02d}"
            if base is not None and _stands_for(base, config):
                run = base.id
            members.append({"run": run, "config": config.canonical()})
        content = {
            "kind": kind,
            "title": " ".join(title.split())[:120],
            "created": now(),
            "base": base.id if base is not None else "",
            "members": members,
        }
        folder = self.root / "groups" / group_id
        files.write_json(folder / "group.json", content)
        sharing.claim(folder)
        return Group(folder)


def _stands_for(base: RunStore, config: RunConfig) -> bool:
    """Whether `base` is this very run, computed here and finished."""
    return not base.recorded and status_of(base) == "done" and base.config.canonical() == config.canonical()


def described(config: RunConfig, kind: str) -> str:
    """What sets a member apart, in words: 'seed 3, calibration 16×256', or its domains in order."""
    if kind == "orders":
        return " → ".join(config.domains)
    if kind == "sweep":
        removed = amounts.amount_words(config.methods[0], config.structure)
        parts = (config.checkpoint, config.methods[0], removed, " → ".join(config.domains))
        return ", ".join([*map(str, parts), f"seed {config.protocol.seed}"])
    return f"seed {config.protocol.seed}, calibration {config.protocol.calibration}".replace("x", "×")


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
                "what": described(member.settings(), group.kind),
                "status": status_of(store) if (store := stores[member.run]) is not None else "waiting",
            }
            for member in group.members
        ],
    }
