"""Readers of the file formats: from a path to documents, with memory and time bounded for files of any size."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from copal_core.domains.columns import choose_column
from copal_core.domains.decoding import decode, whole_characters
from copal_core.domains.documents import Document, Pool, Report
from copal_core.domains.regions import WHOLE, regions
from copal_core.errors import DomainError

Reader = Callable[[Path, str | None, int, int, Report], Pool]  # path, column, seed, characters, report

_SLACK = 4  # characters read for each one needed, so that windows of both sides can be chosen


def read_text(path: Path, column: str | None, seed: int, characters: int, report: Report) -> Pool:
    """Read a .txt or .md file: one document, or one per region of a large file. Raises DomainError."""
    if column is not None:
        raise DomainError(f"'{path.name}' is plain text and has no column '{column}'; leave out '#{column}'")
    size = path.stat().st_size
    if size <= max(WHOLE, _SLACK * characters):
        report(f"reading {path.name}", 0, 1)
        return Pool([Document(path.name, decode(path.read_bytes(), path.name))])
    documents = [
        Document(f"bytes {start}-{start + len(content)}", decode(content, path.name, start))
        for start, content in regions(path, seed, max(WHOLE // 2, characters), report)
    ]
    read = sum(len(document.text) for document in documents)
    return Pool(
        documents,
        [f"large file: {len(documents)} regions spread over it were read, {read / 1e6:.0f} of {size / 1e6:.0f} MB",
         "split by region: one document"],
    )  # fmt: skip


def read_jsonl(path: Path, column: str | None, seed: int, characters: int, report: Report) -> Pool:
    """Read a .jsonl file of objects: one document per line. Raises DomainError."""
    size = path.stat().st_size
    if size <= max(WHOLE, _SLACK * characters):
        parts: Iterable[tuple[int, bytes]] = [(0, path.read_bytes())]
        notes = []
    else:
        parts = list(regions(path, seed, max(WHOLE // 2, characters), report))
        read = sum(len(content) for _, content in parts)
        notes = [f"large file: {read / 1e6:.0f} of {size / 1e6:.0f} MB were read, spread over all of it"]
    documents: list[Document] = []
    for start, content in parts:
        for number, line in enumerate(decode(content, path.name, start).split("\n")):
            if line.strip():
                place = f"line {number + 1}" if start == 0 else f"line {number + 1} after byte {start:,}"
                row = _json_object(line, path.name, place)
                if column not in row or (not documents and row[column] is not None):
                    column = _json_column(row, path.name, column)
                _add(documents, place, row[column], path.name, column)
    return Pool(documents, notes)


def read_csv(path: Path, column: str | None, seed: int, characters: int, report: Report) -> Pool:
    """Read a .csv file with a header line: one document per row. Raises DomainError.

    A large file is read from its beginning until there is enough text: rows may span lines, so no other
    position is a safe start.
    """
    del seed
    report(f"reading {path.name}", 0, 1)
    import pandas as pd

    with path.open("rb") as file:
        head = decode(whole_characters(file.read(2**16)), path.name)
    options = {"sep": _separator(head), "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    documents: list[Document] = []
    size, limit = 0, max(WHOLE, _SLACK * characters)  # characters
    try:
        first = pd.read_csv(path, nrows=20, **options)
        if not isinstance(first.index, pd.RangeIndex):  # pandas makes columns without a header the index
            raise DomainError(
                f"'{path.name}' has rows with more columns than its header line names; name every column"
            )
        texts = [name for name in first.columns if not _numeric(first[name])]
        chosen = choose_column(path.name, list(first.columns), column, texts)
        with pd.read_csv(path, chunksize=2_000, usecols=[chosen], **options) as rows:
            for block in rows:
                for number, text in block[chosen].items():
                    _add(documents, f"row {number + 1}", text, path.name, chosen)
                    size += len(text)
                report(f"reading {path.name}", min(size, limit), limit)
                if size >= limit:
                    return Pool(documents, [f"large file: only its first {len(documents):,} rows were read"])
    except UnicodeDecodeError as error:
        raise DomainError(f"'{path.name}' is not valid UTF-8 ({error.reason}); save it as UTF-8") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DomainError(f"'{path.name}' is not a readable CSV file: {str(error).strip()}") from None
    return Pool(documents)


def read_parquet(path: Path, column: str | None, seed: int, characters: int, report: Report) -> Pool:
    """Read a .parquet file: one document per row, row groups in a seeded order until there is enough text.

    Raises DomainError.
    """
    report(f"reading {path.name}", 0, 1)
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents: list[Document] = []
    size, limit = 0, max(WHOLE, _SLACK * characters)  # characters
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            texts = [field.name for field in schema if _is_text(field.type)]
            chosen = choose_column(path.name, schema.names, column, texts)
            for group in np.random.default_rng(seed).permutation(file.num_row_groups).tolist():
                number = 0
                for batch in file.iter_batches(1_000, row_groups=[group], columns=[chosen]):
                    for text in batch.column(0).to_pylist():
                        number += 1
                        _add(documents, f"group {group} row {number}", text, path.name, chosen)
                        size += len(text or "")
                    report(f"reading {path.name}", min(size, limit), limit)
                    if size >= limit:
                        return Pool(
                            documents, [f"large file: {len(documents):,} of {file.metadata.num_rows:,} rows"]
                        )
    except (pa.ArrowException, OSError) as error:
        raise DomainError(
            f"'{path.name}' is not a readable parquet file: {str(error).splitlines()[0]}"
        ) from None
    return Pool(documents)


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _add(documents: list[Document], place: str, text: object, source: str, column: str) -> None:
    """Append a row's text; missing values are skipped. Raises DomainError for anything but text."""
    if text is None or text == "":
        return
    if not isinstance(text, str):
        raise DomainError(
            f"column '{column}' of '{source}' holds {type(text).__name__} at {place}, not text; choose another column"
        )
    if "\0" in text:
        raise DomainError(
            f"column '{column}' of '{source}' holds binary data at {place}; choose another column"
        )
    documents.append(Document(place, text))


def _json_object(line: str, source: str, place: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DomainError(f"'{source}' is not JSON Lines: {place} has {error.msg.lower()}") from None
    except (ValueError, RecursionError):
        raise DomainError(
            f"'{source}' is not readable JSON Lines: {place} nests too deeply or holds a number of too many digits"
        ) from None
    if not isinstance(row, dict):
        raise DomainError(f"'{source}' is not JSON Lines of objects: {place} is {type(row).__name__}")
    return row


def _json_column(row: dict[str, object], source: str, requested: str | None) -> str:
    texts = [name for name, value in row.items() if isinstance(value, str)]
    return choose_column(source, list(row), requested, texts)


def _separator(head: str) -> str:
    """Return the separator of the header line's columns; a comma unless another one is evident."""
    try:
        return csv.Sniffer().sniff(head.partition("\n")[0], delimiters=",;\t|").delimiter
    except csv.Error:
        return ","


def _numeric(values: object) -> bool:
    """Return whether every value of a pandas column of strings is a number or empty."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    return bool((numbers.notna() | (values == "")).all()) and len(numbers) > 0


def _is_text(kind: object) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type  # type: ignore[attr-defined]
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
