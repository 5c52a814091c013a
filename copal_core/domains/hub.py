"""Text data sets of the Hugging Face hub, streamed; what a run has read once is read from the cache again."""

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

_HELD = 4_000_000  # characters read of one split at least, where it has them
_SPEC = re.compile(
    r"^hub:(?P<path>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<config>[\w.+-]+))?(#(?P<column>.+))?$"
)
_ARTICLE = re.compile(r"^\s*= [^=].*[^=] =\s*$")  # WikiText's heading of an article


@dataclass(frozen=True)
class Source:
    """Where a hub data set lies and how its rows become documents.

    sides: split by side where the publisher parted them, else {"": split or ""}. gather: "row" (one document
    a row), "article" (rows up to the next article's heading), or "block" (50 rows of running text).
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
        """Reads the specification only. Raises DomainError when it is malformed or names no preset."""
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
        """The documents that seed 0 would read. Raises DomainError."""
        yield from self.pool(0, 0, lambda label, done, total: None).documents

    def pool(self, seed: int, characters: int, report: Report) -> Pool:
        """Stream each split until there is enough; keep what was read in the cache folder.

        Raises DomainError within seconds when the hub cannot be reached or does not have the data set.
        """
        held = max(characters, _HELD)
        cached = _cache_file(f"{self.spec} {seed} {held}")
        if cached.is_file():
            report(f"reading {self.label} from the cache", 0, 1)
            with suppress(
                OSError, ValueError, KeyError, TypeError
            ):  # a damaged file is read from the hub again
                return _read_cache(cached)
        documents: list[Document] = []
        for side, split in self.source.sides:
            stream = rows(self.source, split, seed, self.label)
            documents += _gather(stream, self.source.gather, side or None, split, held, self.label, report)
        notes = [f"{side} from the {split} split" for side, split in self.source.sides if side]
        pool = Pool(documents, notes)
        _write_cache(cached, pool)
        return pool


def _parse(spec: str) -> Source:
    match = _SPEC.match(spec)
    if match is None:
        asked = spec.removeprefix("hub:")
        near = difflib.get_close_matches(asked, PRESETS, n=1)
        hint = f"; did you mean 'hub:{near[0]}'?" if near else ""
        raise DomainError(
            f"'{spec}' names no hub data set; use {', '.join(f'hub:{name}' for name in PRESETS)} "
            f"or hub:owner/name[:config][#column]{hint}"
        )
    return Source(match["path"], match["config"], match["column"])


def _gather(
    stream: Iterator[str], how: str, side: str | None, split: str, held: int, label: str, report: Report
) -> Iterator[Document]:
    """Rows to documents until `held` characters; a last document that was cut short is left out."""
    characters = 0
    for number, text in enumerate(_grouped(stream, how)):
        if text.strip():
            yield Document(f"{split or 'row'} {number}", text, side)
            characters += len(text)
        report(f"reading {label}", min(characters, held), held)
        if characters >= held:
            return


def _grouped(stream: Iterator[str], how: str) -> Iterator[str]:
    """The texts of whole documents."""
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
    """Best effort and atomic: a cache that cannot be written costs a download, no more."""
    entries = [[document.id, document.text, document.side] for document in pool.documents]
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"documents": entries, "notes": pool.notes}), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
