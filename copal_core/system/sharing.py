"""A server that several people share (COPAL_SHARED=1): what it opens and downloads, and whose a run is.

    COPAL_HOSTS       names that browsers may call the server by, separated by commas, besides those of this machine
    COPAL_ROOTS       folders whose checkpoints and texts may be opened, separated as in PATH; none by default
    COPAL_HUB_ALLOW   what may be downloaded: owner/name or owner/*, separated by commas; nothing by default
    COPAL_PERSON      who a process works for; set by the app for the processes that it starts

Without COPAL_SHARED nothing but the names is limited. Whoever uses the command line has no COPAL_PERSON: the
operator, who may change every run. What a person makes carries a file `owner`, apart from run.json, which is exported
and shared.
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
    """Whether several people share this server."""
    return os.environ.get("COPAL_SHARED", "") not in ("", "0")


# -- what it may be called -------------------------------------------------------------------------------


def hosts(bound: str | None) -> list[str]:
    """Names that a browser may call the server by; IPv6 addresses in brackets, as in a URL.

    Somebody else's page whose name is made to lead to this machine (DNS rebinding) is of the server's own origin to
    the browser; only the name tells it apart.

    Args:
        bound: the address that the server listens at, if it was told one.

    Raises:
        InvalidValueError: when COPAL_HOSTS has something that is no name.
    """
    named = [one.strip() for one in os.environ.get("COPAL_HOSTS", "").split(",") if one.strip()]
    for one in named:
        if not _HOST.fullmatch(one):
            raise InvalidValueError(
                f"COPAL_HOSTS has '{one[:40]}', which is no name of a server; use names as in class.example, "
                "*.class.example, 192.0.2.7 or [2001:db8::7], without http:// and port"
            )
    if bound is not None:
        named.append(f"[{bound}]" if ":" in bound else bound)
    return ["localhost", "127.0.0.1", "[::1]", socket.gethostname(), *named]


# -- what may be opened and downloaded -------------------------------------------------------------------


def why_not_path(path: Path, uploads: bool = False) -> str | None:
    """Why `path` may not be opened, in words; None when it may. Links are followed first.

    uploads: whether files that people uploaded may be.
    """
    if not enabled():
        return None
    roots = [Path(root).expanduser() for root in os.environ.get("COPAL_ROOTS", "").split(os.pathsep) if root]
    try:
        resolved = path.resolve()
        allowed = [root.resolve() for root in [*roots, *([uploads_root()] if uploads else [])]]
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        return f"'{path}' cannot be opened; check the path"
    if any(resolved.is_relative_to(root) for root in allowed):
        return None
    shown = ", ".join(str(root) for root in roots) or "none"
    return f"'{path}' is outside the folders that this shared server opens ({shown}); use those, or what is built in"


def why_not_hub(name: str) -> str | None:
    """Why the hub's `owner/name` may not be downloaded, in words; None when it may."""
    if not enabled():
        return None
    allowed = [one.strip() for one in os.environ.get("COPAL_HUB_ALLOW", "").split(",") if one.strip()]
    if any(_matches(name, one) for one in allowed):
        return None
    shown = ", ".join(allowed) or "nothing"
    return (
        f"'{name}' is not among what this shared server downloads ({shown}); use those, or what is built in"
    )


def _matches(name: str, pattern: str) -> bool:
    """Whether `name` is the pattern `owner/name`, or one of `owner/*`."""
    return fnmatch.fnmatchcase(name, pattern) if pattern.endswith("/*") else name == pattern


# -- whose it is -----------------------------------------------------------------------------------------


def identify_by(resolver: Callable[[], str] | None) -> None:
    """Let `resolver` say who asks, as the app does from the browser's cookies; never empty. None: COPAL_PERSON."""
    global _resolver
    _resolver = resolver


def person() -> str:
    """Who asks: a hash, or OPERATOR."""
    if not enabled():
        return OPERATOR
    return _resolver() if _resolver is not None else os.environ.get("COPAL_PERSON", OPERATOR)


def claim(folder: Path) -> None:
    """Note that who asks now made what lies in `folder`. Raises RunError when that cannot be written."""
    from copal_core.system import files  # numpy, which describing a checkpoint does not need

    if enabled():
        files.write_text(folder / _OWNER, person())


def is_owner(folder: Path) -> bool:
    """Whether who asks may change what lies in `folder`: its maker, and the operator; anybody unless shared."""
    asking = person()
    if not enabled() or asking == OPERATOR:
        return True
    try:
        return (folder / _OWNER).read_text(encoding="utf-8").strip() == asking
    except (OSError, ValueError):  # made by the operator
        return False


def require_owner(folder: Path) -> None:
    """Raise RunError unless who asks may change what lies in `folder`."""
    if not is_owner(folder):
        raise RunError(
            f"'{folder.name}' belongs to another person of this shared server; look at it, and start one of your own"
        )
