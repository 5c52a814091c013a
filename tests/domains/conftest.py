"""A tokenizer that needs no model, and domains made of given texts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from copal_core.domains.documents import Document
from copal_core.domains.domain import Domain


class WordTokenizer:
    """One token a word, numbered in the order of first appearance; 0 ends a text."""

    eos_token_id = 0

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.tokenised = 0

    def __call__(
        self, texts: list[str], add_special_tokens: bool, verbose: bool
    ) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        ids = [
            [self.numbers.setdefault(word, len(self.numbers) + 1) for word in text.split()] for text in texts
        ]
        self.tokenised += sum(map(len, ids))
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        words = {number: word for word, number in self.numbers.items()}
        return " ".join(words.get(number, "<end>") for number in ids)


class TextDomain(Domain):
    """Documents given as they are."""

    spec = name = label = "given"

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def documents(self) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            yield Document(f"d{number}", text)


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache of hub texts."""
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path_factory.mktemp("cache")))
