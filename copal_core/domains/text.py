"""Cutting text at its natural joints: paragraphs, and documents short enough to mix."""

from __future__ import annotations

import re

_BLANK_LINES = re.compile(r"\n[ \t\r]*\n\s*")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of `text`, as they stand, without the blank lines between them."""
    return [part for part in _BLANK_LINES.split(text) if part.strip()]


def normalised(text: str) -> str:
    """`text` in lower case with one space for every run of other than letters and digits: for comparing."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def encodable(text: str) -> str:
    """`text` with a question mark for each half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def distinct_paragraphs(text: str, seen: set[str]) -> str:
    """`text` without the paragraphs already in `seen`; adds the rest to `seen`."""
    kept = []
    for paragraph in paragraphs(text):
        key = normalised(paragraph)
        if key not in seen:
            seen.add(key)
            kept.append(paragraph)
    return "\n\n".join(kept)


def pieces(text: str, characters: int) -> list[str]:
    """`text` cut between paragraphs into pieces of about `characters`, in order; none is tiny."""
    result: list[str] = []
    current: list[str] = []
    size = 0
    for paragraph in paragraphs(text):
        current.append(paragraph)
        size += len(paragraph) + 2
        if size >= characters:
            result.append("\n\n".join(current))
            current, size = [], 0
    if current:
        rest = "\n\n".join(current)
        if result and len(rest) < characters // 4:
            result[-1] += "\n\n" + rest
        else:
            result.append(rest)
    return result


def chunks(text: str, characters: int) -> list[str]:
    """`text` cut into consecutive chunks of at most about `characters`, at line ends or spaces where there are any."""
    result = []
    start = 0
    while len(text) - start > characters * 5 // 4:
        end = start + characters
        for joint in ("\n", " "):
            found = text.rfind(joint, start + characters // 2, end)
            if found >= 0:
                end = found + 1
                break
        result.append(text[start:end])
        start = end
    result.append(text[start:])
    return result
