"""Uploaded files, stored under generated names beside the runs."""

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
    """Return the folder of uploads."""
    return uploads_root()


def keep(name: str, content: bytes) -> Path:
    """Store an upload under a name of safe letters and a hash of its content; equal files are stored once.

    Args:
        name: of the uploaded file.
        content: of the uploaded file.

    Returns:
        The path of the stored file.

    Raises:
        DomainError: the format is unknown, the file is empty, or it cannot be written.
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
        # eight digits of the hash can coincide with those of another text
        target = whole if short.exists() and short.read_bytes() != content else short
        if not target.exists():
            files.write_bytes(target, content)
    except OSError as error:
        raise DomainError(
            f"the upload could not be stored in '{folder()}': {error.strerror or error}"
        ) from None
    except RunError as error:
        raise DomainError(f"the upload could not be stored in '{folder()}': {error}") from None
    return target


def columns_of(path: Path) -> list[str]:
    """Return the column names of a table, from its first rows. Raises DomainError if they cannot be read."""
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
    """Show the form that uploads a file, chooses a table's column, and adds the domain with `add(spec)`."""
    upload = st.file_uploader(
        "Text or table",
        type=list(FORMATS),
        key="upload",
        help="Tables need a column that holds text. At most 200 MB.",
    )
    if upload is None:
        return
    try:
        path = _stored(upload)
        column = None
        if path.suffix in _TABLES:
            columns = columns_of(path)
            if not columns:
                raise DomainError(f"'{upload.name[:80]}' has no columns; check the file")
            default = columns.index("text") if "text" in columns else 0
            column = st.selectbox("Column with the text", columns, index=default, key="upload-column")
        spec = f"{path}#{column}" if column else str(path)
        if spec in draft.values()["domains"]:
            st.caption("This file is already on the timeline.")
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


def _stored(upload: Any) -> Path:
    """Store an upload once, and not each time the page runs."""
    known = st.session_state.get("upload-kept")
    if known is None or known[0] != upload.file_id or not known[1].exists():
        known = (upload.file_id, keep(upload.name, upload.getvalue()))
        st.session_state["upload-kept"] = known
    return known[1]


def _check_and_add(spec: str, add: Any) -> None:
    """Add the file if its first document can be read, so that an unusable one is refused now, not during a run."""
    try:
        if next(iter(find(spec).documents()), None) is None:
            raise DomainError("the file holds no text; choose another")
        add(spec)
    except CopalError as error:
        st.session_state["upload-error"] = [str(error)]


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
