"""Cutting text loses none of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from copal_core.domains.decoding import whole_characters
from copal_core.domains.documents import stable_fraction
from copal_core.domains.text import chunks, distinct_paragraphs, normalised, pieces

TEXTS = st.text(alphabet="ab \n", max_size=300)


@given(TEXTS, st.integers(4, 50))
def test_chunks_are_the_text_in_order(text, characters):
    parts = chunks(text, characters)
    assert "".join(parts) == text
    assert all(len(part) <= characters * 5 // 4 for part in parts)


@given(TEXTS, st.integers(1, 50))
def test_pieces_hold_every_word(text, characters):
    assert " ".join(pieces(text, characters)).split() == text.split()


@given(st.text(max_size=30), st.integers(0, 60), st.integers(0, 60))
def test_a_cut_anywhere_still_decodes(text, start, end):
    content = text.encode()[start:end]
    assert whole_characters(content).decode() in text


def test_paragraphs_are_kept_once():
    seen: set[str] = set()
    assert distinct_paragraphs("One.\n\nTwo.\n \nOne.", seen) == "One.\n\nTwo."
    assert distinct_paragraphs("TWO\n\nthree", seen) == "three"
    assert normalised("  The MIT_Licence,\n 2.0 ") == "the mit licence 2 0"


def test_the_share_of_a_document_is_the_same_everywhere():
    # the first 8 bytes of SHA-256("abc") are ba7816bf8f01cfea
    assert stable_fraction("abc") == 0xBA7816BF8F01CFEA / 2**64
