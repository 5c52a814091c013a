"""Drawing of windows from a domain: documents to two token streams, streams to windows, repeats dropped.

Documents are shuffled by the seed and assigned to calibration or evaluation, whichever is further from its target;
each side's documents are concatenated with the end-of-text token between them and cut into disjoint windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from copal_core.config import Windows
from copal_core.domains.documents import Document, Report
from copal_core.domains.domain import Domain
from copal_core.domains.repeats import without_repeats
from copal_core.domains.sample import Sample
from copal_core.domains.streams import Stream, deal_documents, halves, part_regions
from copal_core.errors import DomainError

_POOL_FACTOR = 8  # tokens to choose from, for each token needed
_POOL_EXTRA = 150_000  # but at most this many beyond those needed, which keeps large protocols quick
_CHARACTERS_PER_TOKEN = 6  # a generous estimate, for requesting enough text from a source
# an upper bound: a token covers a byte or more, but a document may add an end token and a leading space
_TOKENS_PER_BYTE = 4
_BYTES_PER_TOKEN = 4  # typical of text
_WHOLE = 1_000_000  # characters: a text up to this length is tokenised whole before it is split by region


def draw(
    domain: Domain,
    tokenizer: Any,
    calibration: Windows,
    evaluation: Windows,
    seed: int,
    report: Report = lambda label, done, total: None,
) -> Sample:
    """Draw calibration and evaluation windows that share no document. Equal arguments give equal windows.

    Args:
        domain: the source of the text.
        tokenizer: a transformers tokenizer.
        calibration: number of windows and their length in tokens.
        evaluation: likewise.
        seed: decides which documents are used and in which order windows are chosen.
        report: receives label, done and total.

    Returns:
        The windows, their text and a hash of their content.

    Raises:
        DomainError: the source cannot be read, or holds too little text.
    """
    wanted = {"calibration": calibration, "evaluation": evaluation}
    targets = {side: _target(windows) for side, windows in wanted.items()}
    report(f"reading {domain.label}", 0, 1)
    pool = domain.pool(seed, sum(targets.values()) * _CHARACTERS_PER_TOKEN, report)
    documents = [document for document in pool.documents if document.text.strip()]
    if not documents:
        raise DomainError(
            f"domain '{domain.name}' holds no text; choose a source or a column with text in it"
        )
    # only for long texts: a shorter one is soon tokenised, and counted exactly
    if sum(len(document.text) for document in documents) > _WHOLE:
        size = sum(len(document.text.encode("utf-8", "replace")) for document in documents)
        refuse_hopeless(domain.name, size, calibration, evaluation)
    generator = np.random.default_rng(seed)
    notes = list(pool.notes)
    streams = _streams(documents, tokenizer, wanted, targets, generator, report, notes)
    if any(len(stream) < wanted[side].tokens for side, stream in streams.items()):
        presplit = any(document.side for document in documents)
        raise too_little(domain.name, streams, wanted, presplit)
    return _windows(domain.name, tokenizer, streams, wanted, generator, notes)


def refuse_too_short(domain: Domain, calibration: Windows, evaluation: Windows) -> None:
    """Raise DomainError if the text is known to be too short for the windows without reading it."""
    size = domain.most_bytes()
    if size:  # an empty file is refused as such when it is read
        refuse_hopeless(domain.name, size, calibration, evaluation)


def refuse_hopeless(name: str, size: int, calibration: Windows, evaluation: Windows) -> None:
    """Raise DomainError if `size` bytes of text cannot hold the windows, whatever the tokenizer."""
    wanted = {"calibration": calibration, "evaluation": evaluation}
    needed = sum(windows.tokens for windows in wanted.values())
    if needed <= _TOKENS_PER_BYTE * size:
        return
    asked = " + ".join(f"{windows} for {side}" for side, windows in wanted.items())
    room = fitting(_shares(size // _BYTES_PER_TOKEN, wanted), wanted)
    raise DomainError(
        f"domain '{name}' holds {size:,} bytes of text, {asked} need {needed:,} tokens; at the usual "
        f"{_BYTES_PER_TOKEN} bytes per token {room}, or choose a source with more text"
    )


def _target(windows: Windows) -> int:
    """Return how many tokens to encode before choosing `windows` among them."""
    return windows.tokens + min((_POOL_FACTOR - 1) * windows.tokens, _POOL_EXTRA)


def _streams(
    documents: list[Document],
    tokenizer: Any,
    wanted: dict[str, Windows],
    targets: dict[str, int],
    generator: np.random.Generator,
    report: Report,
    notes: list[str],
) -> dict[str, Stream]:
    """Return each side's tokens, split by document, or by region if there are too few or too uneven documents."""
    size = 32 * max(windows.length for windows in wanted.values())  # characters in one chunk
    if len(documents) > 1:
        streams = deal_documents(documents, tokenizer, targets, size, generator, report)
        if all(len(stream) >= wanted[side].tokens for side, stream in streams.items()):
            return streams
        if any(document.side for document in documents):
            return streams  # split by the publisher, which a split by region would mix
    needs = {side: windows.tokens for side, windows in wanted.items()}
    if sum(len(document.text) for document in documents) > _WHOLE:
        parts = halves(documents, needs["calibration"] / sum(needs.values()))
        streams = deal_documents(parts, tokenizer, targets, size, generator, report)
    else:
        streams = part_regions(documents, tokenizer, needs, generator, report)
    why = "one document" if len(documents) == 1 else f"{len(documents)} documents are too few or too uneven"
    notes.append(f"split by region: {why}")
    return streams


def _windows(
    name: str,
    tokenizer: Any,
    streams: dict[str, Stream],
    wanted: dict[str, Windows],
    generator: np.random.Generator,
    notes: list[str],
) -> Sample:
    """Choose evaluation windows, then calibration windows that contain none of their text."""
    candidates = {side: _cut(streams[side], windows.length, generator) for side, windows in wanted.items()}
    evaluation, evaluation_owners = (part[: wanted["evaluation"].count] for part in candidates["evaluation"])
    fresh = without_repeats(candidates["calibration"][0], evaluation)  # (candidates,) bool
    count = wanted["calibration"].count
    if fresh.sum() < count:
        raise DomainError(
            f"domain '{name}' repeats itself: of {len(fresh)} calibration windows of "
            f"{wanted['calibration'].length} tokens only {fresh.sum()} hold no text of the evaluation windows, "
            f"{count} are needed; ask for fewer or shorter windows, or remove the repeats from the source"
        )
    chosen = np.flatnonzero(fresh)[:count]
    dropped = int((~fresh[: chosen[-1] + 1]).sum())
    if dropped:
        notes.append(
            f"{dropped} calibration windows were replaced: they repeat text of the evaluation windows"
        )
    calibration, calibration_owners = (part[chosen] for part in candidates["calibration"])
    owners = {"calibration": calibration_owners, "evaluation": evaluation_owners}
    return Sample(
        calibration=calibration,
        evaluation=evaluation,
        document_ids={side: streams[side].names(owners[side]) for side in owners},
        decode=tokenizer.decode,
        notes=notes,
    )


def _cut(stream: Stream, length: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut the stream into windows in a seeded order: ids and owners, each (windows, length) int64."""
    count = len(stream) // length
    order = generator.permutation(count)
    ids, owners = stream.arrays()
    used = count * length
    return ids[:used].reshape(count, length)[order], owners[:used].reshape(count, length)[order]


def too_little(
    name: str, streams: dict[str, Stream], wanted: dict[str, Windows], presplit: bool
) -> DomainError:
    """Build the error for a short source: tokens available, tokens needed, and windows that would fit.

    Args:
        name: of the domain.
        streams: side -> its tokens.
        wanted: side -> its windows.
        presplit: the publisher split the source, so that tokens cannot move from one side to the other.
    """
    lengths = {side: len(stream) for side, stream in streams.items()}
    there = sum(lengths.values())
    asked = " + ".join(f"{windows} for {side}" for side, windows in wanted.items())
    needed = sum(windows.tokens for windows in wanted.values())
    return DomainError(
        f"domain '{name}' holds {there:,} tokens of text, {asked} need {needed:,}; "
        f"{fitting(lengths if presplit else _shares(there, wanted), wanted)}, or choose a source with more text"
    )


def _shares(there: int, wanted: dict[str, Windows]) -> dict[str, int]:
    """Divide `there` tokens between the sides: a side that needs less than half gets all it needs."""
    needs = {side: windows.tokens for side, windows in wanted.items()}
    rest = {side: there - sum(needs.values()) + need for side, need in needs.items()}  # what others leave
    return {side: min(need, max(there // 2, rest[side])) for side, need in needs.items()}


def fitting(lengths: dict[str, int], wanted: dict[str, Windows]) -> str:
    """Name the largest windows that fit into each side's tokens: fewer of the same length, else shorter ones.

    Args:
        lengths: side -> tokens available.
        wanted: side -> windows needed.
    """
    by_side = [(lengths[side], windows) for side, windows in wanted.items()]
    counts = [min(windows.count, there // windows.length) for there, windows in by_side]
    if all(counts):
        pair = [f"{count}x{windows.length}" for count, (_, windows) in zip(counts, by_side, strict=True)]
        return f"{pair[0]} and {pair[1]} would fit"
    shortest = min(there for there, _ in by_side)
    length = 1 << max(min(shortest, *(windows.length for windows in wanted.values())).bit_length() - 1, 0)
    if length < 16:
        return "no windows of 16 tokens fit"
    counts = [min(windows.count, there // length) for there, windows in by_side]
    return f"shorter windows would fit: {counts[0]}x{length} and {counts[1]}x{length}"
