"""Texts that a caller holds in memory, as files that a run can read: one domain a list of documents."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from copal_core.errors import DomainError
from copal_core.system import paths

Texts = str | os.PathLike[str] | Sequence[str] | Mapping[str, str | Sequence[str]]
_LONGEST_SPEC = 255  # characters; a longer string is a text and not the name of one
_NAME = re.compile(r"\w[\w .-]{0,59}")  # of a domain: what every file system can write


def write_texts(domains: Texts | Sequence[Texts]) -> tuple[str, ...]:
    """Return a specification for each domain, writing texts in memory to files. Raises DomainError."""
    specs: list[str] = []
    given = [domains] if isinstance(domains, str | os.PathLike | Mapping) else domains
    for number, item in enumerate(given, start=1):
        if isinstance(item, Mapping):
            specs += [_written(name, documents) for name, documents in item.items()]
        elif isinstance(item, os.PathLike) or (isinstance(item, str) and not _is_text(item)):
            specs.append(os.fspath(item))
        else:
            specs.append(_written(f"texts-{number}", item))
    return tuple(specs)


def _is_text(item: str) -> bool:
    """Tell a text from the specification of one: it has several lines, or is longer than any name."""
    return "\n" in item or len(item) > _LONGEST_SPEC


def _written(name: str, documents: str | Sequence[str]) -> str:
    """Write documents as NAME.jsonl. Returns its path, the same for the same documents. Raises DomainError."""
    texts = [documents] if isinstance(documents, str) else list(documents)
    if not _NAME.fullmatch(name):
        raise DomainError(
            f"domain name '{name[:80]}' is not valid: letters, digits, dots, dashes, at most 60"
        )
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DomainError(f"document {number} of domain '{name}' is {type(text).__name__}; give strings")
    if not any(text.strip() for text in texts):
        raise DomainError(f"domain '{name}' holds no text; give at least one document with text in it")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    folder = Path(paths.process_folder(), f"texts-{hashlib.sha256(lines.encode()).hexdigest()[:12]}")
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text(lines, encoding="utf-8")
    return str(path)
