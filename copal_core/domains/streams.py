"""Token streams of calibration and evaluation, and the document that each token comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from copal_core.domains.documents import Document, Report
from copal_core.domains.text import chunks, encodable

_BATCH = 16  # chunks tokenised at a time


@dataclass
class Stream:
    """Concatenated tokens of one side, with the document that each token comes from.

    Attributes:
        ids: one (n,) int64 array per part.
        owners: the document of each part.
        length: number of tokens.
    """

    ids: list[np.ndarray] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    length: int = 0

    def __len__(self) -> int:
        return self.length

    def add(self, owner: str, ids: np.ndarray) -> None:
        """Append (n,) tokens of the document `owner`."""
        self.ids.append(ids)
        self.owners.append(owner)
        self.length += len(ids)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all tokens and the part number of each: two (length,) int64 arrays."""
        lengths = [len(ids) for ids in self.ids]
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *self.ids]), np.repeat(np.arange(len(lengths)), lengths)

    def names(self, parts: np.ndarray) -> tuple[str, ...]:
        """Return the distinct documents of the given part numbers, sorted."""
        return tuple(sorted({self.owners[part] for part in np.unique(parts)}))


def encode(tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    """Return the (n,) int64 token ids of each text, followed by the end-of-text token if the tokenizer has one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    encoded = tokenizer([encodable(text) for text in texts], add_special_tokens=False, verbose=False)
    return [np.asarray([*ids, *end], dtype=np.int64) for ids in encoded["input_ids"]]


def deal_documents(
    documents: list[Document],
    tokenizer: Any,
    targets: dict[str, int],
    size: int,
    generator: np.random.Generator,
    report: Report,
) -> dict[str, Stream]:
    """Tokenise shuffled chunks of documents until each side has reached its target.

    Cutting long documents into chunks mixes them with others; all chunks of a document go to the same side.

    Args:
        documents: to be split between the sides.
        tokenizer: a transformers tokenizer.
        targets: side -> tokens needed.
        size: of a chunk, in characters.
        generator: shuffles the chunks.
        report: receives label, done and total.

    Returns:
        side -> its tokens; fewer than the target where the documents run out.
    """
    parts = [(document, text) for document in documents for text in chunks(document.text, size)]
    streams = {side: Stream() for side in targets}
    side_of = {document.id: document.side for document in documents if document.side}
    waiting: list[tuple[Document, str]] = []

    def full(side: str | None) -> bool:
        return side is not None and len(streams[side]) >= targets[side]

    def assign_waiting() -> None:
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
            assign_waiting()
    if waiting:
        assign_waiting()
    return streams


def part_regions(
    documents: list[Document],
    tokenizer: Any,
    needs: dict[str, int],
    generator: np.random.Generator,
    report: Report,
) -> dict[str, Stream]:
    """Tokenise all documents as one stream and split it into two contiguous regions.

    Args:
        documents: in the order of the stream.
        tokenizer: a transformers tokenizer.
        needs: side -> tokens needed; the regions are in this proportion.
        generator: decides which side comes first.
        report: receives label, done and total.

    Returns:
        side -> its tokens.
    """
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
    """Join all text and split it into two documents, the first with `share` of the characters."""
    text = "\n\n".join(document.text for document in documents)
    cut = text.rfind("\n", 0, int(len(text) * share)) + 1 or int(len(text) * share)
    regions = ((0, cut, "calibration"), (cut, len(text), "evaluation"))
    return [Document(f"characters {a}-{b}", text[a:b], side) for a, b, side in regions]
