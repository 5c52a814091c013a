"""Legal prose: the distinct licence texts of the installed distributions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from copal_core.domains.builtin import BUILTINS, BuiltIn
from copal_core.domains.documents import Document
from copal_core.domains.text import distinct_paragraphs, pieces

_FILE = re.compile(r"^(.*licen[sc]es?|.*copying|.*notices?)([._-].*)?$", re.IGNORECASE)
_NOT_TEXT = (".py", ".pyc", ".json", ".html", ".js", ".toml")
_PIECE = 6_000  # characters: a collection of licences becomes several documents
_SHORTEST = 400


@BUILTINS.register("licences")
class Licences(BuiltIn):
    """One document per licence text, several for a collection; recurring paragraphs are included once."""

    label = "Licences"
    training_share = 0.4
    description = "Distinct licence texts of the installed Python packages."

    def sources(self) -> Iterator[Document]:
        seen: set[str] = set()
        texts = _texts()
        # short texts first, so that of a collection only paragraphs found nowhere else remain
        for name in sorted(texts, key=lambda name: (len(texts[name]), name)):
            text = distinct_paragraphs(texts[name], seen)
            for number, piece in enumerate(pieces(text, _PIECE)):
                if len(piece) >= _SHORTEST:
                    yield Document(f"{name}#{number}", piece)


def _texts() -> dict[str, str]:
    """Return name without version numbers -> licence text; texts that differ in white space only appear once."""
    texts: dict[str, str] = {}
    for name, path in sorted(_files().items()):
        try:
            text = Path(path.locate()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        texts[name] = text
    distinct = {" ".join(text.split()): name for name, text in reversed(texts.items())}
    return {name: texts[name] for name in distinct.values()}


def _files() -> dict[str, metadata.PackagePath]:
    files = {}
    for distribution in metadata.distributions():
        for path in distribution.files or ():
            if _FILE.match(path.name) and not path.name.lower().endswith(_NOT_TEXT):
                inside = [part for part in path.parts if not part.endswith((".dist-info", ".egg-info"))]
                files["/".join([distribution.name.lower(), *inside])] = path
    return files
