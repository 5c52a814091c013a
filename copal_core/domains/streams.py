"""Token streams of the two sides: which document goes where, and who owns which token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from copal_core.domains.documents import Document, Report
from copal_core.domains.text import chunks, encodable

_BATCH = 16  # chunks tokenised at a time


@dataclass
class Stream:
    """Concatenated tokens of one side, with the document that each token came from."""

    ids: list[np.ndarray] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)  # one a part
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def add(self, owner: str, ids: np.ndarray) -> None:
        """Append (n,) tokens of the document `owner`."""
        self.ids.append(ids)
        self.owners.append(owner)
        self.length += len(ids)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All tokens, and for each the number of its part: (length,) int64 twice."""
        lengths = [len(ids) for ids in self.ids]
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *self.ids]), np.repeat(np.arange(len(lengths)), lengths)

    def names(self, parts: np.ndarray) -> tuple[str, ...]:
        """The distinct documents behind part numbers, sorted."""
        return tuple(sorted({self.owners[part] for part in np.unique(parts)}))


def encode(tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    """Token ids of each text, ended by the end-of-text token where the tokenizer has one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    encoded = tokenizer([encodable(text) for text in texts], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return [np.asarray([*ids, *end], dtype=np.int64) for ids in encoded]


def deal_documents(
    documents: list[Document],
    tokenizer: Any,
    targets: dict[str, int],
    size: int,
    generator: np.random.Generator,
    report: Report,
) -> dict[str, Stream]:
    """Tokenise shuffled chunks of about `size` characters until both sides hold their target of tokens.

    Chunks mix long documents with others; all chunks of a document go to the side of its first one.
    """
    parts = [(document, text) for document in documents for text in chunks(document.text, size)]
    streams = {side: Stream() for side in targets}
    side_of = {document.id: document.side for document in documents if document.side}
    waiting: list[tuple[Document, str]] = []

    def full(side: str | None) -> bool:
        return side is not None and len(streams[side]) >= targets[side]

    def place() -> None:
        for (document, _), ids in zip(waiting, encode(tokenizer, [text for _, text in waiting]), strict=True):
            emptiest = min(streams, key=lambda side: len(streams[side]) / targets[side])
            side = side_of.setdefault(document.id, emptiest)
            if not full(side):
                streams[side].add(document.id, ids)
        waiting.clear()
        done = sum(min(len(stream), targets[side]) for side, stream in streams.items())
        report("tokenising", done, sum(targets.values()))

    for index in generator.permutation(len(parts)):
        if all(full(side) for side in streams):
            break
        if full(side_of.get(parts[index][0].id)):
            continue
        waiting.append(parts[index])
        if len(waiting) == _BATCH:
            place()
    if waiting:
        place()
    return streams


def part_regions(
    documents: list[Document],
    tokenizer: Any,
    needs: dict[str, int],
    generator: np.random.Generator,
    report: Report,
) -> dict[str, Stream]:
    """All the text as one stream, parted into two contiguous regions in proportion to what each side needs."""
    whole = Stream()
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        report("tokenising", start, len(documents))
        for document, ids in zip(
            batch, encode(tokenizer, [document.text for document in batch]), strict=True
        ):
            whole.add(document.id, ids)
    first, second = generator.permutation(sorted(needs)).tolist()
    cut = round(len(whole) * needs[first] / sum(needs.values()))
    ids, parts = whole.arrays()
    streams = {}
    for side, region in ((first, slice(0, cut)), (second, slice(cut, None))):
        streams[side] = Stream()
        for part in np.unique(parts[region]):
            streams[side].add(whole.owners[part], ids[region][parts[region] == part])
    return streams


def halves(documents: list[Document], share: float) -> list[Document]:
    """All the text as two documents, the first with `share` of the characters."""
    text = "\n\n".join(document.text for document in documents)
    cut = text.rfind("\n", 0, int(len(text) * share)) + 1 or int(len(text) * share)
    regions = ((0, cut, "calibration"), (cut, len(text), "evaluation"))
    return [Document(f"characters {a}-{b}", text[a:b], side) for a, b, side in regions]
