"""Names of domains as people read them: a label instead of a path or an id."""

from __future__ import annotations

from pathlib import Path

from copal_core.domains import builtins, hub_presets
from copal_core.system.paths import uploads_root


def label_of(spec: str) -> str:
    """Return a domain's label, an uploaded file's name, or `spec` itself where nothing else is known."""
    known = {**hub_presets(), **{one.name: one.label for one in builtins()}}
    if spec in known:
        return known[spec]
    path, hash_sign, column = spec.rpartition("#") if "#" in spec else (spec, "", "")
    if is_upload(spec):
        return Path(path).name + (f", column {column}" if hash_sign else "")
    return spec


def is_upload(spec: str) -> bool:
    """Return True for a file that somebody uploaded here."""
    return spec.startswith(f"{uploads_root()}/")
