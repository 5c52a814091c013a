"""Windows: shapes, disjointness, seeds, repeats, and what is said when there is too little."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copal_core.config import Windows
from copal_core.domains import draw, find, resolve_specs
from copal_core.domains.repeats import without_repeats
from copal_core.errors import DomainError
from tests.domains.conftest import TextDomain, WordTokenizer


def words(document: int, count: int) -> str:
    """`count` words that no other document has."""
    return " ".join(f"w{document}.{number}" for number in range(count))


def windows(text: str) -> Windows:
    return Windows.parse(text)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=20),
    calibration=st.tuples(st.integers(1, 6), st.integers(2, 40)),
    evaluation=st.tuples(st.integers(1, 6), st.integers(2, 40)),
    seed=st.integers(0, 2**31 - 1),
)
def test_samples_are_disjoint_and_repeat(lengths, calibration, evaluation, seed):
    domain = TextDomain([words(number, length) for number, length in enumerate(lengths)])
    asked = (
        Windows(count=calibration[0], length=calibration[1]),
        Windows(count=evaluation[0], length=evaluation[1]),
    )
    tokenizer = WordTokenizer()
    try:
        sample = draw(domain, tokenizer, *asked, seed)
    except DomainError:
        there = sum(lengths) + sum(length > 0 for length in lengths)
        assert there < sum(part.tokens for part in asked)  # for no other reason
        return
    assert sample.calibration.shape == calibration and sample.evaluation.shape == evaluation
    assert sample.calibration.dtype == sample.evaluation.dtype == np.int64
    # every word occurs once in the source, so no token but the end may be on both sides, or twice
    tokens = np.concatenate([sample.calibration.ravel(), sample.evaluation.ravel()])
    tokens = tokens[tokens != 0]
    assert len(np.unique(tokens)) == len(tokens)
    if not sample.notes:
        assert not set(sample.document_ids["calibration"]) & set(sample.document_ids["evaluation"])
    again = draw(domain, tokenizer, *asked, seed)
    assert again.content_hash == sample.content_hash and again.document_ids == sample.document_ids


def test_seeds_choose_different_windows(tokenizer):
    domain = TextDomain([words(number, 100) for number in range(30)])
    hashes = {
        draw(domain, tokenizer, windows("4x16"), windows("3x16"), seed).content_hash for seed in range(5)
    }
    assert len(hashes) == 5


def test_an_end_token_stands_between_documents(tokenizer):
    domain = TextDomain([words(number, 9) for number in range(8)])
    sample = draw(domain, tokenizer, windows("4x10"), windows("4x10"), 0)
    assert (np.concatenate([sample.calibration, sample.evaluation])[:, 9] == 0).all()
    assert sample.documents == {"calibration": 4, "evaluation": 4}


def test_one_document_is_parted_by_region(tokenizer):
    sample = draw(TextDomain([words(0, 299)]), tokenizer, windows("10x20"), windows("5x20"), 3)
    assert sample.notes == ["split by region: one document"]
    low, high = sorted([sample.calibration, sample.evaluation], key=lambda part: part.max())
    assert low.max() < high[high > 0].min()


def test_a_giant_and_a_dwarf_are_parted_by_region(tokenizer):
    sample = draw(TextDomain([words(0, 400), words(1, 3)]), tokenizer, windows("8x20"), windows("8x20"), 0)
    assert sample.notes == ["split by region: 2 documents are too few or too uneven"]


def test_one_long_document_is_not_tokenised_whole(tokenizer):
    sample = draw(TextDomain([words(0, 400_000)]), tokenizer, windows("8x16"), windows("8x16"), 0)
    assert sample.notes == ["split by region: one document"]
    assert tokenizer.tokenised < 20_000


def test_calibration_never_repeats_evaluation_text(tokenizer):
    shared = words(99, 70)
    texts = [f"{words(number, 10)} {shared} {words(number + 100, 20)}" for number in range(10)]
    texts += [words(number + 200, 100) for number in range(60)]
    seen = 0
    for seed in range(8):
        sample = draw(TextDomain(texts), tokenizer, windows("12x100"), windows("12x100"), seed)
        runs = {tuple(row[i : i + 64]) for row in sample.evaluation for i in range(37)}
        assert not runs & {tuple(row[i : i + 64]) for row in sample.calibration for i in range(37)}
        seen += any("were replaced" in note for note in sample.notes)
    assert seen


def test_a_source_that_only_repeats_itself_is_refused(tokenizer):
    domain = TextDomain([words(0, 99)] * 20)
    with pytest.raises(DomainError, match="repeats itself.*fewer or shorter windows"):
        draw(domain, tokenizer, windows("4x100"), windows("4x100"), 0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_repeats_are_found_like_by_brute_force(data):
    ids = st.integers(0, 1)
    length, other = data.draw(st.integers(16, 80)), data.draw(st.integers(16, 80))
    source = np.array(data.draw(st.lists(ids, min_size=200, max_size=200)))
    candidates = np.stack(
        [
            source[start : start + length]
            for start in data.draw(st.lists(st.integers(0, 120), min_size=1, max_size=6))
        ]
    )
    evaluation = np.stack(
        [
            source[start : start + other]
            for start in data.draw(st.lists(st.integers(0, 120), min_size=1, max_size=4))
        ]
    )
    run = min(64, length, other)
    known = {tuple(row[i : i + run]) for row in evaluation for i in range(other - run + 1)}
    expected = [
        not any(tuple(row[i : i + run]) in known for i in range(length - run + 1)) for row in candidates
    ]
    assert without_repeats(candidates, evaluation).tolist() == expected


def test_very_short_windows_may_recur():
    assert without_repeats(np.ones((3, 8), dtype=np.int64), np.ones((2, 8), dtype=np.int64)).all()


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [("16x64", "12x64"), ("4x512", "2x512"), ("128x256", "1x2048"), ("2x64", "2x1048576")],
)
def test_too_little_text_says_what_fits_and_it_does(tokenizer, calibration, evaluation):
    domain = TextDomain([words(number, 99) for number in range(9)])
    with pytest.raises(DomainError, match=r"holds 900 tokens of text, .* need [\d,]+; .*would fit") as caught:
        draw(domain, tokenizer, windows(calibration), windows(evaluation), 0)
    fitting = re.findall(r"\d+x\d+", str(caught.value).split(";")[1])
    sample = draw(domain, tokenizer, windows(fitting[0]), windows(fitting[1]), 0)
    assert len(sample.calibration) and len(sample.evaluation)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_at_all(tokenizer, texts):
    with pytest.raises(DomainError, match="holds no text"):
        draw(TextDomain(texts), tokenizer, windows("1x16"), windows("1x16"), 0)


def test_a_few_words_fit_nothing(tokenizer):
    with pytest.raises(DomainError, match="no windows of 16 tokens fit"):
        draw(TextDomain(["three little words"]), tokenizer, windows("1x16"), windows("1x16"), 0)


def test_texts_hash_and_progress(tokenizer):
    calls = []
    domain = TextDomain([words(number, 100) for number in range(40)])
    sample = draw(domain, tokenizer, windows("2x16"), windows("1x16"), 0, lambda *call: calls.append(call))
    assert sample.calibration_text(1).split()[0].startswith("w")
    assert sample.evaluation_text(0).count(" ") == 15
    content = b"(2, 16)" + sample.calibration.astype("<i8").tobytes()
    content += b"(1, 16)" + sample.evaluation.astype("<i8").tobytes()
    assert sample.content_hash == hashlib.sha256(content).hexdigest()
    assert calls[0][0] == "reading given" and calls[-1][1] == calls[-1][2] > 0


def test_a_long_text_that_cannot_hold_the_windows_is_not_tokenised(tokenizer: WordTokenizer) -> None:
    domain = TextDomain([words(number, 20_000) for number in range(8)])
    with pytest.raises(DomainError, match=r"holds 1,\d{3},\d{3} bytes of text, 100000x1024 .* would fit"):
        draw(domain, tokenizer, windows("100000x1024"), windows("12x256"), 0)
    assert tokenizer.tokenised == 0
    with pytest.raises(DomainError, match=r"holds 160,0\d\d tokens of text"):  # it might have: counted
        draw(domain, tokenizer, windows("1000x1024"), windows("12x256"), 0)
    assert tokenizer.tokenised >= 160_000


def test_a_file_far_too_short_is_refused_unread(tmp_path: Path, tokenizer: WordTokenizer) -> None:
    path = tmp_path / "short.txt"
    path.write_text("".join(f"{number:03} " for number in range(500)), encoding="utf-8")
    for calibration, fits in (("6x48", True), ("200x48", False)):
        asked = (windows(calibration), windows("1x48"))
        if fits:
            assert resolve_specs([str(path)], *asked) == (str(path),)
            assert draw(find(str(path)), tokenizer, *asked, 0).calibration.shape == (6, 48)
        else:
            with pytest.raises(DomainError, match="holds 2,000 bytes of text"):
                resolve_specs([str(path)], *asked)


def test_a_compressed_file_is_not_judged_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "short.parquet"
    path.write_bytes(b"PAR1")
    assert resolve_specs([str(path)], windows("100000x1024"), windows("1x48")) == (str(path),)
