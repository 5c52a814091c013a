"""Text data sets of the Hugging Face hub, streamed once and then read from the cache."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from copal_core.domains.documents import Document, Pool, Report
from copal_core.domains.domain import Domain
from copal_core.domains.remote import rows
from copal_core.errors import DomainError
from copal_core.system import sharing
from copal_core.system.paths import cache_root

_LEAST = 4_000_000  # characters read from one split at least, if it has that many
_SPEC = re.compile(
    r"^hub:(?P<path>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<config>[\w.+-]+))?(#(?P<column>.+))?$"
)
_ARTICLE = re.compile(r"^\s*= [^=].*[^=] =\s*$")  # WikiText's heading of an article


@dataclass(frozen=True)
class Source:
    """Location of a hub data set and the rule that turns its rows into documents.

    Attributes:
        path: owner/name on the hub.
        config: the data set's configuration.
        column: the column with the text.
        revision: branch or commit.
        folder: folder within the repository.
        sides: (side, split) pairs where the publisher split the data set, else one pair with an empty side.
        gather: "row" (one document per row), "article" (rows up to the next article's heading) or "block"
            (50 rows of running text).
        label: name shown to people.
    """

    path: str
    config: str | None = None
    column: str | None = None
    revision: str | None = None
    folder: str | None = None
    sides: tuple[tuple[str, str], ...] = (("", ""),)
    gather: str = "row"
    label: str = ""


PRESETS = {
    "wikitext-2": Source(
        "Salesforce/wikitext", "wikitext-2-raw-v1", "text", gather="article", label="WikiText-2",
        sides=(("calibration", "train"), ("evaluation", "test")),
    ),
    # the hub's own parquet copy: the data set itself is a loading script, which `datasets` no longer runs
    "ptb": Source(
        "ptb-text-only/ptb_text_only", None, "sentence", revision="refs/convert/parquet", folder="penn_treebank",
        gather="block", label="Penn Treebank", sides=(("calibration", "train"), ("evaluation", "test")),
    ),
    "c4": Source(
        "allenai/c4", "en", "text", label="C4 (English)",
        sides=(("calibration", "train"), ("evaluation", "validation")),
    ),
}  # fmt: skip


class HubDomain(Domain):
    """`hub:wikitext-2`, `hub:ptb`, `hub:c4`, or `hub:owner/name[:config][#column]`."""

    def __init__(self, spec: str) -> None:
        """Parse the specification. Raises DomainError if it is malformed or names an unknown preset."""
        self.spec = spec
        preset, _, column = spec.removeprefix("hub:").partition("#")
        if preset in PRESETS:
            self.source, self.name = PRESETS[preset], preset
            if column and column != self.source.column:
                raise DomainError(f"'{spec}' has no column to choose; use 'hub:{preset}'")
        else:
            self.source = _parse(spec)
            self.name = spec.removeprefix("hub:").rpartition("/")[2]
        refused = sharing.why_not_hub(self.source.path)
        if refused is not None:
            raise DomainError(refused)
        self.label = self.source.label or spec.removeprefix("hub:")

    def documents(self) -> Iterator[Document]:
        """Yield the documents that seed 0 reads. Raises DomainError."""
        yield from self.pool(0, 0, lambda label, done, total: None).documents

    def pool(self, seed: int, characters: int, report: Report) -> Pool:
        """Stream each split until there is enough text, and save what was read in the cache folder.

        Raises:
            DomainError: within seconds, if the hub cannot be reached or does not have the data set.
        """
        limit = max(characters, _LEAST)
        cached = _cache_file(f"{self.spec} {seed} {limit}")
        if cached.is_file():
            report(f"reading {self.label} from the cache", 0, 1)
            # a damaged cache file is read from the hub again
            with suppress(OSError, ValueError, KeyError, TypeError):
                return _read_cache(cached)
        documents: list[Document] = []
        for side, split in self.source.sides:
            stream = rows(self.source, split, seed, self.label)
            documents += _gather(stream, self.source.gather, side or None, split, limit, self.label, report)
        notes = [f"{side} from the {split} split" for side, split in self.source.sides if side]
        pool = Pool(documents, notes)
        _write_cache(cached, pool)
        return pool


def _parse(spec: str) -> Source:
    match = _SPEC.match(spec)
    if match is None:
        near = difflib.get_close_matches(spec.removeprefix("hub:"), PRESETS, n=1)
        hint = f"; did you mean 'hub:{near[0]}'?" if near else ""
        raise DomainError(
            f"'{spec}' names no hub data set; use {', '.join(f'hub:{name}' for name in PRESETS)} "
            f"or hub:owner/name[:config][#column]{hint}"
        )
    return Source(match["path"], match["config"], match["column"])


def _gather(
    stream: Iterator[str], how: str, side: str | None, split: str, limit: int, label: str, report: Report
) -> Iterator[Document]:
    """Turn rows into whole documents until they hold `limit` characters."""
    characters = 0
    for number, text in enumerate(_grouped(stream, how)):
        if text.strip():
            yield Document(f"{split or 'row'} {number}", text, side)
            characters += len(text)
        report(f"reading {label}", min(characters, limit), limit)
        if characters >= limit:
            return


def _grouped(stream: Iterator[str], how: str) -> Iterator[str]:
    """Yield the texts of whole documents."""
    if how == "row":
        yield from stream
    elif how == "block":
        while block := list(itertools.islice(stream, 50)):
            yield "\n".join(line.strip() for line in block)
    else:
        article: list[str] = []
        for row in stream:
            if _ARTICLE.match(row) and article:
                yield "".join(article)
                article = []
            article.append(row)
        yield "".join(article)


def _cache_file(key: str) -> Path:
    return cache_root() / "domains" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _read_cache(path: Path) -> Pool:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Pool([Document(*entry) for entry in content["documents"]], content["notes"])


def _write_cache(path: Path, pool: Pool) -> None:
    """Write the cache atomically; a failure is ignored, for it costs no more than another download."""
    entries = [[document.id, document.text, document.side] for document in pool.documents]
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"documents": entries, "notes": pool.notes}), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
