"""Perplexity and hidden states are those of the stock model, for every shape of checkpoint we accept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from copal_core.checkpoints.backbone import Backbone
from copal_core.experiment.evaluation import evaluate, summarise, token_losses
from copal_core.statistics.blockwise import HiddenStates

LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 10000.0,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "grouped-query, tied": {},
    "untied": {"tie_word_embeddings": False},
    "multi-head": {"num_key_value_heads": 4},
    "head size": {"head_dim": 12},
    "rope llama3": {"rope_parameters": LLAMA3},
    "rope linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "sharded": {"max_shard_size": "20KB"},
    "attention bias": {"attention_bias": True},
}


@pytest.fixture
def windows() -> Tensor:
    return torch.randint(1, 300, (3, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def stock(folder: Path, windows: Tensor) -> tuple[Tensor, float]:
    """Logits and the mean cross-entropy that transformers computes itself."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = model(input_ids=windows, labels=windows)
    return found.logits, float(found.loss)


def blockwise(backbone: Backbone, windows: Tensor) -> Tensor:
    states = HiddenStates(backbone, [windows])
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            states.advance(block)
    return backbone.logits(torch.cat(states.sets[0]))


def assert_equal_to_stock(folder: Path, windows: Tensor, **options: Any) -> None:
    logits, loss = stock(folder, windows)
    backbone = Backbone(folder, "cpu", "float32", **options)
    torch.testing.assert_close(blockwise(backbone, windows), logits, rtol=1e-4, atol=1e-4)
    found = evaluate(backbone, [windows])[0]
    assert found.nats / found.tokens == pytest.approx(loss, abs=1e-5)
    assert found.tokens == windows.shape[0] * (windows.shape[1] - 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_llama(make_model: Callable[..., Path], windows: Tensor, variant: str) -> None:
    folder = make_model(**VARIANTS[variant])
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (variant == "sharded")
    assert_equal_to_stock(folder, windows)


@pytest.mark.parametrize("sliding", [None, 8])
def test_mistral(make_model: Callable[..., Path], windows: Tensor, sliding: int | None) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, sliding_window=sliding, initializer_range=0.2,
    )  # fmt: skip
    assert_equal_to_stock(make_model(model=MistralForCausalLM(config)), windows)


def test_blocks_read_again_at_each_visit(small_model: Path, windows: Tensor) -> None:
    assert_equal_to_stock(small_model, windows, keep_blocks=False)


def test_windows_are_independent_of_their_batch(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from copal_core.statistics import blockwise as module

    windows = torch.randint(1, 300, (7, 16), generator=torch.Generator().manual_seed(3))
    backbone = Backbone(small_model, "cpu", "float32")
    together = token_losses(backbone, [windows])[0]
    monkeypatch.setitem(module.TOKENS_PER_BATCH, "cpu", 16)
    torch.testing.assert_close(token_losses(backbone, [windows])[0], together, rtol=1e-5, atol=1e-5)


def test_sets_of_different_length_at_once(small_model: Path, windows: Tensor) -> None:
    backbone = Backbone(small_model, "cpu", "float32")
    short = windows[:, :12]
    both = token_losses(backbone, [windows, short])
    assert [tuple(losses.shape) for losses in both] == [(3, 39), (3, 11)]
    torch.testing.assert_close(both[0][:, :11], both[1], rtol=1e-4, atol=1e-5)  # causal: the future is unseen


def test_logits_in_parts_give_the_same_loss(
    small_model: Path, windows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from copal_core.experiment import evaluation

    backbone = Backbone(small_model, "cpu", "float32")
    whole = token_losses(backbone, [windows])[0]
    monkeypatch.setitem(evaluation._LOGITS_AT_ONCE, "cpu", 7 * 300)
    torch.testing.assert_close(token_losses(backbone, [windows])[0], whole, rtol=1e-5, atol=1e-6)


def test_weights_can_be_replaced_for_one_evaluation(small_model: Path, windows: Tensor) -> None:
    backbone = Backbone(small_model, "cpu", "float32")
    before = evaluate(backbone, [windows])[0]
    zeros = {"down_proj": torch.zeros(32, 48), "o_proj": torch.zeros(32, 32)}
    without = evaluate(backbone, [windows], lambda index, block: zeros)[0]
    expected = backbone.logits(backbone.embed(windows))[:, :-1]  # every block adds nothing
    loss = torch.nn.functional.cross_entropy(
        expected.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum"
    )
    assert without.nats == pytest.approx(float(loss), rel=1e-5)
    assert evaluate(backbone, [windows])[0] == before


def test_windows_that_are_not_finite_are_counted() -> None:
    losses = torch.ones(4, 5)
    losses[1, 2], losses[3, 0] = torch.nan, torch.inf
    found = summarise(losses)
    assert found.nonfinite_windows == 2 and found.tokens == 20
    assert found.perplexity == float("inf")
    assert summarise(torch.ones(4, 5)).perplexity == pytest.approx(torch.e)


def test_a_model_that_overflows_is_counted_in_an_evaluation(small_model: Path, windows: Tensor) -> None:
    backbone = Backbone(small_model, "cpu", "float32")
    broken = {"down_proj": torch.full((32, 48), torch.nan)}
    found = evaluate(backbone, [windows], lambda index, block: broken)[0]
    assert found.nonfinite_windows == 3 and found.perplexity == float("inf")
