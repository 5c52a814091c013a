"""Text: bounded before it is read, cut into the pieces its tokens are, compared as evaluation does, written on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from copal_core.analysis.diagnosis.comparing import compared_losses, continuations, described, same_checkpoint
from copal_core.analysis.diagnosis.kept import DENSE, Result, domain_windows, kept_results
from copal_core.analysis.diagnosis.pieces import MOST_CHARACTERS, bounded, pieces_of, shortened, visible
from copal_core.checkpoints import Checkpoint, locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.compression.restore import variant
from copal_core.errors import InvalidValueError, NumericalError, RunError
from copal_core.experiment.evaluation import no_change, token_losses
from copal_core.experiment.generation import generate, whole_model
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

TEXTS = [
    "def area(radius):\n    return 3 * radius ** 2\n",
    "<script>alert(1)</script> & <b>",
    "emoji 👩‍💻🏳️‍🌈, עברית, العربية, 日本語 and \u202ereversed\u202c",
    "tabs\t and  spaces   \n\n\n",
    "replacement \ufffd itself",
]


def quiet(label: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def store(finished: Callable[[str, str], RunStore]) -> RunStore:
    return finished("unstructured", "pruned")


@pytest.fixture(scope="module")
def checkpoint(store: RunStore) -> Checkpoint:
    return locate(store.config.checkpoint)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> Any:
    return checkpoint.tokenizer()


# -- pieces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text_and_every_token_is_in_one(tokenizer: Any, text: str) -> None:
    found = bounded(text, tokenizer)
    pieces = pieces_of(found.tokens, tokenizer)
    assert "".join(piece.text for piece in pieces) == text
    places = [place for piece in pieces for place in range(piece.start, piece.stop)]
    assert places == list(range(len(found.tokens)))
    assert not found.cut


def test_text_cut_inside_a_character_still_ends(tokenizer: Any) -> None:
    tokens = bounded("👩", tokenizer).tokens[:-1]
    (piece,) = pieces_of(tokens, tokenizer)
    assert (piece.start, piece.stop) == (0, len(tokens))


def test_long_text_is_cut_before_it_is_tokenised() -> None:
    seen: list[int] = []

    def tokenizer(text: str, verbose: bool) -> dict[str, list[int]]:
        seen.append(len(text))
        return {"input_ids": list(range(len(text)))}

    long = "word " * 2_000_000
    found = bounded(shortened(long), tokenizer, len(long))
    assert seen == [MOST_CHARACTERS]
    assert len(found.tokens) == 2000 and f"{len(long):,} characters" in found.cut
    assert bounded("exactly", tokenizer, 7).cut == ""


def test_too_little_text_says_how_much_is_needed(tokenizer: Any) -> None:
    for text in ("", "a"):
        with pytest.raises(InvalidValueError, match="at least 2"):
            bounded(text, tokenizer)


def test_marks_that_hide_or_reorder_are_shown_by_their_code() -> None:
    assert visible("a\u202eb\u2066c\u200bd\x00e\ufeff") == "a[U+202E]b[U+2066]c[U+200B]d[U+0000]e[U+FEFF]"
    assert visible("tab\t line\n שלום 👩‍💻 é") == "tab\t line\n שלום 👩‍💻 é"
    assert shortened("half \ud83d") == "half ?"


# -- losses --------------------------------------------------------------------------------------------


def test_losses_are_those_of_evaluation(store: RunStore, checkpoint: Checkpoint, tokenizer: Any) -> None:
    ids = torch.from_numpy(domain_windows(store, 1, checkpoint)["evaluation"][0])
    models = [(store, DENSE), (store, Result("wanda:restart", 2)), (store, Result("sparsegpt:joint", 3))]
    backbone = checkpoint.open("cpu", "float32")
    found = compared_losses(backbone, ids, models, quiet)
    for row, weights in zip(
        found,
        [no_change, variant(store, "wanda:restart", 2), variant(store, "sparsegpt:joint", 3)],
        strict=True,
    ):
        expected = token_losses(backbone, [ids[None]], weights)[0][0].tolist()
        assert row == [None, *expected]
    rows = described(ids.tolist(), found, tokenizer)
    assert sum(row[2] for row in rows if row[2] is not None) == pytest.approx(sum(found[1][1:]))  # type: ignore[arg-type]


def test_text_beyond_the_context_goes_through_in_windows(store: RunStore, checkpoint: Checkpoint) -> None:
    ids = torch.randint(1, 300, (64 * 2 + 1,), generator=torch.Generator().manual_seed(0))
    (row,) = compared_losses(checkpoint.open("cpu", "float32"), ids, [(store, DENSE)], quiet)
    assert len(row) == len(ids)
    assert [place for place, loss in enumerate(row) if loss is None] == [0, 64, 128]


def test_only_results_of_one_checkpoint_that_are_kept_compare(store: RunStore) -> None:
    recorded = Runs().open("recorded-smollm2-135m")
    same_checkpoint([(store, one) for one in kept_results(store)[:2]])
    with pytest.raises(RunError, match="different checkpoints"):
        same_checkpoint([(store, DENSE), (recorded, DENSE)])
    with pytest.raises(RunError, match="keeps no weights"):
        same_checkpoint([(recorded, Result("wanda:restart", 1))])
    assert kept_results(recorded) == []


# -- writing -------------------------------------------------------------------------------------------


def test_greedy_text_is_what_transformers_writes(small_model: Path) -> None:
    model = Backbone(small_model, "cpu", "float32").causal_lm()
    prompt = torch.tensor([5, 17, 200, 3])
    expected = model.generate(
        prompt[None], max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )  # type: ignore[operator]
    assert generate(model, prompt, 12) == expected[0, 4:].tolist()


def test_the_seed_decides_and_equal_models_write_the_same(store: RunStore, checkpoint: Checkpoint) -> None:
    models = [(store, DENSE), (store, DENSE), (store, Result("magnitude:restart", 1))]
    asked = (store.config.protocol, [5, 17, 200], models, 20)
    first = continuations(checkpoint, *asked, 1.0, 3, quiet)
    assert first[0] == first[1] != first[2]
    assert continuations(checkpoint, *asked, 1.0, 3, quiet) == first
    assert continuations(checkpoint, *asked, 1.0, 4, quiet) != first


def test_a_whole_model_computes_with_the_results_weights(store: RunStore, checkpoint: Checkpoint) -> None:
    ids = torch.randint(1, 300, (1, 24), generator=torch.Generator().manual_seed(1))
    weights = variant(store, "copal:accumulate", 3)
    backbone = checkpoint.open("cpu", "float32")
    expected = token_losses(backbone, [ids], weights)[0]
    with whole_model(checkpoint.folder, "cpu", "float32", weights) as model, torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert loss == pytest.approx(float(expected.mean()), abs=1e-5)


def test_writing_stops_at_the_end_and_refuses_nonsense(small_model: Path) -> None:
    model = Backbone(small_model, "cpu", "float32").causal_lm()
    prompt = torch.tensor([5, 17])
    first = generate(model, prompt, 3)[0]
    assert generate(model, prompt, 3, end=frozenset({first})) == []
    for count, temperature, words in (
        (0, 0.0, "new tokens"),
        (10**9, 0.0, "new tokens"),
        (3, -1.0, "temperature"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            generate(model, prompt, count, temperature)
    with pytest.raises(InvalidValueError, match="prompt is empty"):
        generate(model, prompt[:0], 3)
    model.lm_head.weight.data = torch.full_like(model.lm_head.weight, torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NumericalError):
        generate(model, prompt, 3)


def test_a_prompt_and_text_longer_than_the_context_are_refused(
    store: RunStore, checkpoint: Checkpoint
) -> None:
    with pytest.raises(InvalidValueError, match="exceed the context of 64"):
        continuations(
            checkpoint, store.config.protocol, list(range(1, 61)), [(store, DENSE)], 5, 0.0, 0, quiet
        )


def test_windows_are_drawn_again_only_when_they_are_the_same(
    small_config: Callable[..., Any], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from copal_core.experiment import loop

    store = Runs(tmp_path).create(small_config(["magnitude:restart"], domains=1))
    loop.run(store)
    kept = store.windows(0)
    assert kept is not None
    (store.folder / "windows" / "domain-00.safetensors").unlink()
    again = domain_windows(store, 0, checkpoint)
    assert (again["evaluation"] == kept["evaluation"]).all()
    described_domains = store.info["domains"]
    store.describe(domains=[{**described_domains[0], "content_hash": "0" * 64}])
    with pytest.raises(RunError, match="not what run"):
        domain_windows(store, 0, checkpoint)
