"""Text that people paste, bounded before it is tokenised, and tokens as the pieces of text they stand for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from copal_core.domains.text import encodable
from copal_core.errors import InvalidValueError

MOST_TOKENS = 2000
MOST_CHARACTERS = 24_000  # a token seldom stands for more than a dozen characters
_LONGEST_PIECE = 16  # tokens that one character may take
# marks that reorder or hide the text around them; shown by their code instead
_HIDING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200E, 0x200F, 0x061C, 0xFEFF, 0x00AD}


@dataclass(frozen=True)
class Bounded:
    """The part of a text that is read. characters: of all that was given; cut: what was left out, in words, or ''."""

    text: str
    tokens: tuple[int, ...]
    characters: int
    cut: str


def shortened(text: str) -> str:
    """At most MOST_CHARACTERS of a text, which costs nothing however long it is."""
    return encodable(text[:MOST_CHARACTERS])


def bounded(text: str, tokenizer: Any, characters: int | None = None, most: int = MOST_TOKENS) -> Bounded:
    """The first tokens of a text. characters: how long it was before `shortened`.

    Raises InvalidValueError when there is nothing to predict in it.
    """
    given = len(text) if characters is None else characters
    text = shortened(text)
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if len(ids) < 2:
        raise InvalidValueError(
            f"the text has {len(ids)} token{'s' * (len(ids) != 1)}; at least 2 are needed to predict one"
        )
    cut = ""
    if len(ids) > most or len(text) < given:
        kept = min(len(ids), most)
        cut = f"The text is long ({given:,} characters); its first {kept:,} tokens are compared."
    return Bounded(text, tuple(ids[:most]), given, cut)


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens, from `start` to `stop` - 1, that stand for `text` together (a part of a character cannot)."""

    text: str
    start: int
    stop: int


def pieces_of(tokens: Sequence[int], tokenizer: Any) -> list[Piece]:
    """The tokens as text, in order; one piece for each token, or for those that make one character together."""
    found: list[Piece] = []
    before, start = 0, 0  # decoded together with the piece before: some tokenizers drop a leading space
    for stop in range(1, len(tokens) + 1):
        known = _decoded(tokens[before:start], tokenizer)
        text = _decoded(tokens[before:stop], tokenizer)
        whole = not text.endswith("\ufffd") and text.startswith(known)
        if whole or stop == len(tokens) or stop - start >= _LONGEST_PIECE:
            found.append(Piece(text[len(known) :], start, stop))
            before, start = start, stop
    return found


def visible(text: str) -> str:
    """`text` with marks that would reorder or hide what stands around them shown by their code."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t ":
        return character
    if ord(character) in _HIDING or unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return f"[U+{ord(character):04X}]"
    return character


def _decoded(tokens: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
