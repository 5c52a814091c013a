"""Access rules of a server shared by several people (COPAL_SHARED=1): paths, downloads and ownership of runs.

    COPAL_HOSTS       host names under which browsers may reach the server, comma-separated, besides this machine's own
    COPAL_ROOTS       folders whose checkpoints and texts may be opened, separated as in PATH; none by default
    COPAL_HUB_ALLOW   repositories that may be downloaded: owner/name or owner/*, comma-separated; none by default
    COPAL_PERSON      the person a process works for; set by the app for the processes that it starts

Without COPAL_SHARED only the host names are restricted. On the command line COPAL_PERSON is unset: that is the
operator, who may change every run. The owner of a run is recorded in a file `owner` beside run.json, because run.json
is exported and shared.
"""

from __future__ import annotations

import fnmatch
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from copal_core.errors import InvalidValueError, RunError
from copal_core.system.paths import uploads_root

OPERATOR = ""
_OWNER = "owner"
_HOST = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:.]+\]")
_resolver: Callable[[], str] | None = None


def enabled() -> bool:
    """Return whether several people share this server."""
    return os.environ.get("COPAL_SHARED", "") not in ("", "0")


# -- host names ------------------------------------------------------------------------------------------


def hosts(bound: str | None) -> list[str]:
    """Return the host names under which a browser may reach the server; IPv6 addresses in brackets, as in a URL.

    The check defends against DNS rebinding: a foreign page whose name resolves to this machine has the server's own
    origin as far as the browser is concerned, and only the host name gives it away.

    Args:
        bound: the address that the server listens on, if one was configured.

    Raises:
        InvalidValueError: COPAL_HOSTS contains something that is not a host name.
    """
    names = [name.strip() for name in os.environ.get("COPAL_HOSTS", "").split(",") if name.strip()]
    for name in names:
        if not _HOST.fullmatch(name):
            raise InvalidValueError(
                f"COPAL_HOSTS has '{name[:40]}', which is no name of a server; use names as in class.example, "
                "*.class.example, 192.0.2.7 or [2001:db8::7], without http:// and port"
            )
    if bound is not None:
        names.append(f"[{bound}]" if ":" in bound else bound)
    return ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), *names]


# -- paths and downloads ---------------------------------------------------------------------------------


def why_not_path(path: Path, uploads: bool = False) -> str | None:
    """Return the reason why `path` may not be opened, or None when it may. Links are resolved first.

    Args:
        path: the file or folder.
        uploads: also allow uploaded files.
    """
    if not enabled():
        return None
    roots = [Path(root).expanduser() for root in os.environ.get("COPAL_ROOTS", "").split(os.pathsep) if root]
    try:
        resolved = path.resolve()
        allowed = [root.resolve() for root in [*roots, *([uploads_root()] if uploads else [])]]
    except (OSError, ValueError, RuntimeError):  # an impossible file name, or a cycle of links
        return f"'{path}' cannot be opened; check the path"
    if any(resolved.is_relative_to(root) for root in allowed):
        return None
    shown = ", ".join(str(root) for root in roots) or "none"
    return f"'{path}' is outside the folders that this shared server opens ({shown}); use those, or built-in ones"


def why_not_hub(name: str) -> str | None:
    """Return the reason why the hub's `owner/name` may not be downloaded, or None when it may."""
    if not enabled():
        return None
    patterns = os.environ.get("COPAL_HUB_ALLOW", "").split(",")
    allowed = [pattern.strip() for pattern in patterns if pattern.strip()]
    if any(_matches(name, pattern) for pattern in allowed):
        return None
    shown = ", ".join(allowed) or "nothing"
    return f"'{name}' is not among what this shared server downloads ({shown}); use those, or built-in ones"


def _matches(name: str, pattern: str) -> bool:
    """Return whether `name` equals the pattern `owner/name` or falls under `owner/*`."""
    return fnmatch.fnmatchcase(name, pattern) if pattern.endswith("/*") else name == pattern


# -- ownership -------------------------------------------------------------------------------------------


def identify_by(resolver: Callable[[], str] | None) -> None:
    """Set the function that identifies the current person; None falls back to COPAL_PERSON.

    The app sets one that reads the browser's cookies. It never returns an empty string.
    """
    global _resolver
    _resolver = resolver


def person() -> str:
    """Return the current person: a hash, or OPERATOR."""
    if not enabled():
        return OPERATOR
    return _resolver() if _resolver is not None else os.environ.get("COPAL_PERSON", OPERATOR)


def claim(folder: Path) -> None:
    """Record the current person as the owner of `folder`. Raises RunError when that cannot be written."""
    from copal_core.system import files  # imports numpy, which describing a checkpoint does not need

    if enabled():
        files.write_text(folder / _OWNER, person())


def is_owner(folder: Path) -> bool:
    """Return whether the current person may change `folder`: its owner, the operator, or anyone unless shared."""
    current = person()
    if not enabled() or current == OPERATOR:
        return True
    try:
        return (folder / _OWNER).read_text(encoding="utf-8").strip() == current
    except (OSError, ValueError):  # without a record the operator owns it
        return False


def require_owner(folder: Path) -> None:
    """Raise RunError unless the current person may change `folder`."""
    if not is_owner(folder):
        raise RunError(
            f"'{folder.name}' belongs to another person of this shared server; view it, or start one of your own"
        )
