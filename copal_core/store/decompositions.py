"""A whole checkpoint decomposed, as a folder: what was asked, where it stands, what was found.

    config.json   what was asked        status.json   where it stands
    result.json   what was found, growing by one member at a time
    members/NAME/factors.safetensors    and bases.json for relearned scales

It is computed by one process, the command the command line offers, and cancelled by a file named `cancel`.
"""

from __future__ import annotations

import datetime
import re
import secrets
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from copal_core.config import Method, Protocol, Windows
from copal_core.errors import InvalidValueError, RunError
from copal_core.methods.neurons import NEURONS
from copal_core.store.folder import ID, JobFolder, check_id
from copal_core.system import files, sharing
from copal_core.system.paths import runs_root

DEFAULT_PROTOCOL = Protocol(calibration=Windows(count=32, length=256), propagate="dense")


@dataclass(frozen=True)
class DecompositionConfig:
    """domains: evaluated on. targets: those of them that are calibrated and trained on; all by default.

    methods: decompositions and criteria with options, such as 'plrd[tokens=8192]' or 'wanda'. keep: shares of the
    bytes of every projection. Raises InvalidValueError when built from values that break a rule.
    """

    checkpoint: str
    domains: tuple[str, ...]
    methods: tuple[str, ...]
    keep: tuple[float, ...] = (0.8,)
    targets: tuple[str, ...] = ()
    protocol: Protocol = DEFAULT_PROTOCOL

    def __post_init__(self) -> None:
        if not self.domains or not self.methods or not self.keep:
            raise InvalidValueError("a decomposition needs a domain, a method and a kept share at least")
        unknown = [target for target in self.targets if target not in self.domains]
        if unknown:
            raise InvalidValueError(
                f"target '{unknown[0]}' is not among the domains; list it as a domain too"
            )
        for keep in self.keep:
            if not 0 < keep <= 1:
                raise InvalidValueError(
                    f"keep = {keep} is not a share of the stored bytes; use 0 < keep <= 1, such as 0.8"
                )
        for method in self.methods:
            parse_method(method)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(replace(self, protocol=Protocol())),
            "protocol": self.protocol.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> DecompositionConfig:
        """Raises InvalidValueError when the content is not what `to_json` made."""
        try:
            lists = {key: tuple(content[key]) for key in ("domains", "methods", "keep", "targets")}
            return cls(checkpoint=content["checkpoint"], protocol=Protocol(**content["protocol"]), **lists)
        except (KeyError, TypeError) as error:
            raise InvalidValueError(f"the decomposition's configuration is damaged ({error})") from None


def parse_method(text: str) -> Method:
    """'plrd[tokens=0]' as a name with options. Raises InvalidValueError for anything else."""
    if ":" in text:
        raise InvalidValueError(
            f"method '{text}' names a strategy; a decomposition sees all its targets at once: NAME[OPTIONS]"
        )
    method = Method.parse(f"{text.strip()}:joint")
    if method.name in NEURONS.names():
        raise InvalidValueError(
            f"method '{text}' removes whole neurons; use the command neurons, or run with {method.name}:joint"
        )
    return method


class DecompositionStore(JobFolder):
    """One decomposition's folder."""

    again = "start it again"

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise RunError(f"there is no decomposition '{folder.name}' in {folder.parent}")
        super().__init__(folder, f"decomposition '{folder.name}'")
        self.id = folder.name

    @cached_property
    def config(self) -> DecompositionConfig:
        return DecompositionConfig.from_json(files.read_json(self.folder / "config.json"))

    def result(self) -> dict[str, Any]:
        """What `--json` prints; grows while the decomposition is computed."""
        path = self.folder / "result.json"
        found = files.read_json(path) if path.exists() else {"decomposition": self.id, "members": []}
        return {**found, "status": self.state().status}

    def save_result(self, result: dict[str, Any]) -> None:
        files.write_json(
            self.folder / "result.json", {key: v for key, v in result.items() if key != "status"}
        )

    def member_folder(self, name: str) -> Path:
        """Raises InvalidValueError for a name that is not a member's."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
            raise InvalidValueError(f"'{name}' is not the name of a member")
        return self.folder / "members" / name


class Decompositions:
    """The decompositions of one root folder, which lies beside the runs."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or runs_root()) / "decompositions"

    def list(self) -> list[DecompositionStore]:
        """Newest first."""
        if not self.root.is_dir():
            return []
        found = [path for path in sorted(self.root.iterdir(), reverse=True) if ID.match(path.name)]
        return [DecompositionStore(path) for path in found if (path / "config.json").is_file()]

    def open(self, name: str) -> DecompositionStore:
        """Raises InvalidValueError for what cannot be an id, RunError for an unknown one."""
        check_id("decomposition", name)
        return DecompositionStore(self.root / name)

    def create(self, config: DecompositionConfig) -> DecompositionStore:
        """A new folder with the configuration. Raises RunError when it cannot be written."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        folder = self.root / f"{stamp}-{secrets.token_hex(3)}"
        files.write_json(folder / "config.json", config.to_json())
        sharing.claim(folder)
        return DecompositionStore(folder)
