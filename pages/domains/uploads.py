"""Files a person uploads, kept under generated names beside the runs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import streamlit as st

from copal_core.domains import find
from copal_core.errors import CopalError, DomainError, RunError
from copal_core.system import files
from copal_core.system.paths import uploads_root
from pages.shared import draft
from pages.shared.text import show_error

FORMATS = ("txt", "md", "jsonl", "csv", "parquet")
_TABLES = (".jsonl", ".csv", ".parquet")
_HEAD = 1 << 20


def folder() -> Path:
    """Where uploads are kept."""
    return uploads_root()


def keep(name: str, content: bytes) -> Path:
    """Write an upload under a name made of safe letters and its content's hash; the same file is kept once.

    Raises DomainError when the format is unknown, the file is empty, or the disk refuses.
    """
    suffix = Path(name).suffix.lower()
    if suffix.removeprefix(".") not in FORMATS:
        raise DomainError(f"'{name[:80]}' is of no known format; use {', '.join(FORMATS)}")
    if not content:
        raise DomainError(f"'{name[:80]}' is empty; choose a file with text in it")
    stem = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-")[:24] or "text"
    digest = hashlib.sha256(content).hexdigest()
    short, whole = (folder() / f"{stem}-{digest[:digits]}{suffix}" for digits in (8, len(digest)))
    try:
        # eight digits can be met by another text, of another person too
        target = whole if short.exists() and short.read_bytes() != content else short
        if not target.exists():
            files.write_bytes(target, content)
    except OSError as error:
        raise DomainError(
            f"the upload could not be kept in '{folder()}': {error.strerror or error}"
        ) from None
    except RunError as error:
        raise DomainError(f"the upload could not be kept in '{folder()}': {error}") from None
    return target


def columns_of(path: Path) -> list[str]:
    """Column names of a table, from its first rows. Raises DomainError when they cannot be read."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        with open(path, "rb") as file:
            head = file.read(_HEAD).decode("utf-8-sig")
        if path.suffix == ".csv":
            return next(csv.reader(io.StringIO(head)), [])
        first = json.loads(head.splitlines()[0])
        return [str(key) for key in first] if isinstance(first, dict) else []
    except (OSError, ValueError, IndexError, RecursionError, csv.Error) as error:
        raise DomainError(
            f"'{path.name}' cannot be read as a table ({_brief(error)}); check the file"
        ) from None


def form(add: Any) -> None:
    """Upload a file, choose a table's column, add it as a domain with `add(spec)`."""
    given = st.file_uploader(
        "Text or table",
        type=list(FORMATS),
        key="upload",
        help="Tables need a column that holds text. At most 200 MB.",
    )
    if given is None:
        return
    try:
        path = _kept(given)
        column = None
        if path.suffix in _TABLES:
            columns = columns_of(path)
            if not columns:
                raise DomainError(f"'{given.name[:80]}' has no columns; check the file")
            default = columns.index("text") if "text" in columns else 0
            column = st.selectbox("Column with the text", columns, index=default, key="upload-column")
        spec = f"{path}#{column}" if column else str(path)
        if spec in draft.values()["domains"]:
            st.caption("This file is on the timeline.")
        else:
            st.button(
                "Add to the timeline",
                on_click=_check_and_add,
                args=(spec, add),
                type="primary",
                key="add-file",
            )
    except CopalError as error:
        show_error(error)
    for message in st.session_state.pop("upload-error", []):
        show_error(DomainError(message))


def _kept(given: Any) -> Path:
    """`keep`, once for each upload and not each time the page runs."""
    known = st.session_state.get("upload-kept")
    if known is None or known[0] != given.file_id or not known[1].exists():
        known = (given.file_id, keep(given.name, given.getvalue()))
        st.session_state["upload-kept"] = known
    return known[1]


def _check_and_add(spec: str, add: Any) -> None:
    """Read the first document, so that a file that cannot be used is refused now and not during a run."""
    try:
        if next(iter(find(spec).documents()), None) is None:
            raise DomainError("the file holds no text; choose another")
        add(spec)
    except CopalError as error:
        st.session_state["upload-error"] = [str(error)]


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
