"""Splitting of text at natural boundaries: paragraphs, and chunks short enough to mix."""

from __future__ import annotations

import re

_BLANK_LINES = re.compile(r"\n[ \t\r]*\n\s*")


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of `text`, unchanged, without the blank lines between them."""
    return [part for part in _BLANK_LINES.split(text) if part.strip()]


def normalised(text: str) -> str:
    """Return `text` in lower case with one space for every run of non-alphanumeric characters, for comparison."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def encodable(text: str) -> str:
    """Return `text` with a question mark for each lone surrogate, which JSON can represent and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def distinct_paragraphs(text: str, seen: set[str]) -> str:
    """Return `text` without the paragraphs already in `seen`; add the others to `seen`."""
    fresh = []
    for paragraph in paragraphs(text):
        key = normalised(paragraph)
        if key not in seen:
            seen.add(key)
            fresh.append(paragraph)
    return "\n\n".join(fresh)


def pieces(text: str, characters: int) -> list[str]:
    """Cut `text` between paragraphs into pieces of about `characters`; a tiny rest joins the last piece."""
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
    """Cut `text` into consecutive chunks of about `characters` at most, at line ends or spaces where possible."""
    result = []
    start = 0
    while len(text) - start > characters * 5 // 4:
        end = start + characters
        for boundary in ("\n", " "):
            position = text.rfind(boundary, start + characters // 2, end)
            if position >= 0:
                end = position + 1
                break
        result.append(text[start:end])
        start = end
    result.append(text[start:])
    return result
