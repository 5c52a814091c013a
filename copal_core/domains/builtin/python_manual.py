"""English technical prose: the topics of Python's language reference that `help()` shows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from copal_core.domains.builtin import BUILTINS, BuiltIn
from copal_core.domains.documents import Document
from copal_core.domains.text import distinct_paragraphs, pieces

_PIECE = 6_000  # characters: a long topic becomes several documents
_SHORTEST = 200


@BUILTINS.register("python-manual")
class PythonManual(BuiltIn):
    """One document per topic, several for a long one; paragraphs shared by topics are included once."""

    label = "Python manual"
    training_share = 0.4
    description = "Topics of the Python language reference, from pydoc."

    def why_not(self) -> str:
        if importlib.util.find_spec("pydoc_data.topics") is not None:
            return ""
        return "this Python has no pydoc_data.topics; use a complete Python installation"

    def sources(self) -> Iterator[Document]:
        from pydoc_data.topics import topics

        seen: set[str] = set()
        # short topics first: long ones repeat whole sections of them
        for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
            text = distinct_paragraphs(topics[name], seen)
            for number, piece in enumerate(pieces(text, _PIECE)):
                if len(piece) >= _SHORTEST:
                    yield Document(f"{name}#{number}", piece)
