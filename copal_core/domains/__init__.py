"""Text domains: built-in, from a file, or from the hub. `find` turns a specification into a domain."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from copal_core.config import Windows
from copal_core.domains.builtin import BUILTINS
from copal_core.domains.documents import Document, DomainInfo
from copal_core.domains.domain import Domain
from copal_core.domains.files import FileDomain
from copal_core.domains.hub import PRESETS, HubDomain
from copal_core.domains.readers import READERS
from copal_core.domains.sample import Sample
from copal_core.domains.sampling import draw, refuse_too_short
from copal_core.errors import DomainError

__all__ = [
    "BUILTINS",
    "Document",
    "Domain",
    "DomainInfo",
    "Sample",
    "builtins",
    "draw",
    "find",
    "hub_presets",
    "resolve_specs",
]


def find(spec: str) -> Domain:
    """Return the domain that a specification names, without reading its text.

    Args:
        spec: such as "python-code", "notes.txt", "data.csv#column", "hub:wikitext-2" or
            "hub:owner/name[:config][#column]".

    Raises:
        DomainError: the specification has none of these forms, or the file does not exist.
    """
    spec = spec.strip()
    if spec in BUILTINS.names():
        return BUILTINS.get(spec)()
    if spec.startswith("hub:"):
        return HubDomain(spec)
    if spec and (Path(spec.partition("#")[0]).suffix or "/" in spec or os.path.exists(spec)):
        return FileDomain(spec)
    near = difflib.get_close_matches(spec, BUILTINS.names(), n=1)
    raise DomainError(
        f"domain '{spec}' is not known; built-in: {', '.join(BUILTINS.names())}; "
        f"or a file ({', '.join(READERS)}), or hub:NAME" + (f"; did you mean '{near[0]}'?" if near else "")
    )


def resolve_specs(specs: Iterable[str], calibration: Windows, evaluation: Windows) -> tuple[str, ...]:
    """Return the specifications in a form independent of the current folder: files by their absolute paths.

    Args:
        specs: as `find` takes them; no text is read.
        calibration: windows to be drawn from each domain.
        evaluation: likewise.

    Raises:
        DomainError: a specification is unknown, or a file is far too short for the windows.
    """
    domains = [find(spec) for spec in specs]
    for domain in domains:
        refuse_too_short(domain, calibration, evaluation)
    return tuple(domain.spec for domain in domains)


def builtins() -> list[DomainInfo]:
    """Return a description of every built-in domain, available or not."""
    return [BUILTINS.get(name).info() for name in BUILTINS.names()]


def hub_presets() -> dict[str, str]:
    """Return specification -> label of the data sets used in the papers."""
    return {f"hub:{name}": source.label for name, source in PRESETS.items()}
