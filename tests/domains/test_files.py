"""A user's files: every format, and every way in which one can be wrong."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from copal_core.config import Windows
from copal_core.domains import draw, find, readers, regions
from copal_core.errors import DomainError

SMALL = Windows(count=2, length=16)
ROWS = [f"row {number} " + " ".join(f"x{number}.{i}" for i in range(30)) for number in range(12)]


def sample(spec, tokenizer, seed=0):
    return draw(find(str(spec)), tokenizer, SMALL, SMALL, seed)


def texts(spec):
    return [document.text for document in find(str(spec)).documents()]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def tables(tmp_path):
    """The same rows as .jsonl, .csv and .parquet, with a number and two columns of text."""
    frame = pd.DataFrame(
        {"id": range(12), "body": ROWS, "title": [f"title {number}" for number in range(12)]}
    )
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    return tmp_path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_chosen_column_of_a_table(tables, suffix, tokenizer):
    spec = f"{tables}/t.{suffix}#body"
    assert sorted(texts(spec)) == sorted(ROWS)
    drawn = sample(spec, tokenizer)
    assert drawn.calibration.shape == (2, 16) and not drawn.notes
    assert find(spec).name == f"t.{suffix}#body"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("#boddy", "no column 'boddy'; its columns: id, body, title"),
        ("#id", "column 'id' of .* does not hold text; columns with text: body, title"),
        ("", "several columns with text: body, title; name one after a hash, such as"),
    ],
)
def test_a_wrong_column_lists_the_columns(tables, suffix, column, message):
    with pytest.raises(DomainError, match=message):
        texts(f"{tables}/t.{suffix}{column}")


def test_the_only_text_column_needs_no_name(tmp_path):
    pd.DataFrame({"n": range(12), "words": ROWS}).to_csv(tmp_path / "a.csv", index=False)
    assert texts(tmp_path / "a.csv") == ROWS
    pd.DataFrame({"text": ROWS, "words": ROWS[::-1]}).to_parquet(tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ROWS


def test_cells_may_span_lines_and_be_missing(tmp_path):
    write(tmp_path / "a.csv", '\ufeffid;text\n1;"two\nlines; and more"\n2;\n3;NA')
    assert texts(tmp_path / "a.csv") == ["two\nlines; and more", "NA"]
    write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": null}\r\n{"text": "two"}')
    assert texts(tmp_path / "a.jsonl") == ["one", "two"]


@pytest.mark.parametrize("suffix", ["txt", "md"])
def test_plain_text_with_a_byte_order_mark_and_foreign_line_ends(tmp_path, suffix, tokenizer):
    path = write(
        tmp_path / f"a.{suffix}", b"\xef\xbb\xbf" + " ".join(ROWS).encode() + b" caf\xc3\xa9\r\nend\r"
    )
    [text] = texts(path)
    assert text.startswith("row 0") and text.endswith("café\nend\n")
    assert sample(path, tokenizer).notes == ["split by region: one document"]


@pytest.mark.parametrize("suffix", ["txt", "md", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; choose a file with text"),
        (b"text\ncaf\xe9 au lait\n", "not valid UTF-8.*save it as UTF-8"),
        (b"text\nab\0cd\n", r"binary data \(a zero byte at position 7\)"),
        ("text\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "binary|not valid UTF-8"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, suffix, content, message, tokenizer):
    with pytest.raises(DomainError, match=message):
        sample(write(tmp_path / f"a.{suffix}", content), tokenizer)


def test_where_the_bad_byte_is(tmp_path):
    with pytest.raises(DomainError, match="byte 0xe9 at position 3"):
        texts(write(tmp_path / "a.txt", b"caf\xe9"))


def test_bad_bytes_far_into_a_table(tmp_path):
    content = b"text\n" + b"good words\n" * 10_000 + b"caf\xe9\n"
    with pytest.raises(DomainError, match="a.csv' is not valid UTF-8"):
        texts(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", " \n\n", "holds no text"),
        ("a.csv", "text\n", "holds no text"),
        ("a.csv", 'text\n"never closed\n', "not a readable CSV file"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "not JSON Lines: line 2"),
        ("a.jsonl", '["a"]\n', "line 1 is list"),
        ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', "holds int at line 2, not text"),
        ("a.jsonl", '{"text": "a"}\n{"body": "b"}\n', "no column 'text'; its columns: body"),
        ("a.jsonl", '{"n": 1}\n', "no column with text; its columns: n"),
        ("a.parquet", "no parquet at all", "not a readable parquet file"),
        ("a.parquet", "", "is empty"),
    ],
)
def test_damaged_files(tmp_path, name, content, message, tokenizer):
    with pytest.raises(DomainError, match=message):
        sample(write(tmp_path / name, content), tokenizer)


def test_too_little_text_in_a_file(tmp_path, tokenizer):
    path = write(tmp_path / "short.txt", " ".join(str(number) for number in range(39)))
    message = r"'short.txt' holds 40 tokens of text, 2x16 for calibration \+ 2x16 for evaluation need 64; 1x16 and 1x16"
    with pytest.raises(DomainError, match=message):
        sample(path, tokenizer)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a.docx", "no known format; use .txt, .md"),
        ("nothing.txt", "does not exist; check the path"),
        ("folder.txt", "is not a file"),
        ("a\0.txt", "zero byte"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, spec, message):
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DomainError, match=message):
        find(f"{tmp_path}/{spec}")


def test_plain_text_has_no_columns(tmp_path):
    with pytest.raises(DomainError, match="has no column 'x'; leave out"):
        texts(f"{write(tmp_path / 'a.txt', 'words')}#x")


def test_a_hash_in_a_file_name(tmp_path):
    assert texts(write(tmp_path / "c#notes.txt", "words")) == ["words"]


@pytest.fixture
def little_is_large(monkeypatch):
    """Files from 64 kB on count as large, and regions are of 4 kB."""
    monkeypatch.setattr(readers, "WHOLE", 2**16)
    monkeypatch.setattr(regions, "_REGION", 2**12)


@pytest.mark.parametrize("ends", ["\n", " "])
def test_a_large_text_is_read_in_part(tmp_path, little_is_large, ends):
    path = write(tmp_path / "a.txt", ends.join(f"größer {number}" for number in range(60_000)))
    pools = [find(str(path)).pool(seed, 5_000, lambda *_: None) for seed in (0, 0, 1)]
    assert pools[0] == pools[1] != pools[2]
    documents = pools[0].documents
    assert 20_000 < sum(len(document.text) for document in documents) < 80_000
    numbers = [word for document in documents for word in document.text.split()[2:-2] if word.isdigit()]
    assert (
        len(numbers) == len(set(numbers))
        and min(map(int, numbers)) < 12_000
        and max(map(int, numbers)) > 50_000
    )
    assert (
        pools[0].notes[0].startswith("large file: 8 regions")
        and pools[0].notes[1] == "split by region: one document"
    )


def test_large_tables_are_read_in_part(tmp_path, little_is_large, tokenizer):
    rows = [f"word{number} " * 20 for number in range(5_000)]
    frame = pd.DataFrame({"text": rows})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=100)
    write(tmp_path / "a.jsonl", "".join(json.dumps({"text": row}) + "\n" for row in rows))
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        pool = find(str(tmp_path / name)).pool(0, 1_000, lambda *_: None)
        assert 0 < len(pool.documents) < 3_000 and "large file" in pool.notes[0]
        assert {document.text for document in pool.documents} <= set(rows)
        assert len({document.id for document in pool.documents}) == len(pool.documents)
        assert (
            sample(tmp_path / name, tokenizer).content_hash == sample(tmp_path / name, tokenizer).content_hash
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "line 1 nests too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "a number of too many digits"),
    ],
)
def test_json_that_python_cannot_hold(tmp_path, content, message):
    with pytest.raises(DomainError, match=message):
        texts(write(tmp_path / "a.jsonl", content))


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path, tokenizer):
    lines = [json.dumps({"text": "\ud83d " + row}) for row in ROWS]
    drawn = sample(write(tmp_path / "a.jsonl", "\n".join(lines)), tokenizer)
    assert drawn.calibration.shape == (2, 16)


def test_csv_rows_longer_than_the_header(tmp_path):
    rows = "\n".join(f"key{number},{number},{row}" for number, row in enumerate(ROWS))
    with pytest.raises(DomainError, match="more columns than its header line names"):
        texts(write(tmp_path / "a.csv", f"id,text\n{rows}\n"))


@pytest.mark.parametrize("spec", ["n" * 300, "/" + "n" * 300 + ".txt", "~nobody-here/a.txt", "#" * 300])
def test_what_no_file_can_be_called(spec):
    with pytest.raises(DomainError, match="does not exist|is not known"):
        find(spec)
