"""Opening: what was located loads, and computes what stock transformers computes."""

from __future__ import annotations

import pytest

from copal_core.checkpoints import Checkpoint, devices, locate
from copal_core.errors import CheckpointError
from tests.checkpoints.conftest import ModelFactory

SETTINGS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "grouped": {"num_key_value_heads": 1},
    "scaled": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "sharded": {"max_shard_size": "20KB"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_shape_of_checkpoint_opens(make_model: ModelFactory, setting: str) -> None:
    checkpoint = locate(str(make_model(**SETTINGS[setting])))
    opened = checkpoint.open("cpu", "float32")
    described = checkpoint.describe()
    assert opened.depth == described.blocks
    with opened.block(0) as block:
        shapes = {
            name.rpartition(".")[2]: tuple(module.weight.shape)
            for name, module in block.named_modules()
            if name.endswith("_proj")
        }
    assert shapes == described.projections


def test_a_gpu_that_torch_cannot_use(make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(devices, "find_gpu", lambda index=0: devices.Gpu("old", 1, 1, (5, 0)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CheckpointError, match="choose cpu"):
        locate(str(make_model())).open()


def test_a_token_outside_the_vocabulary(make_model: ModelFactory) -> None:
    import torch

    opened = locate(str(make_model())).open("cpu", "float32")
    with pytest.raises(CheckpointError, match="the tokenizer belongs to another model"):
        opened.embed(torch.tensor([[0, opened.config.vocab_size]]))


@pytest.mark.real
def test_smollm2_opens(smollm2: Checkpoint) -> None:
    opened = smollm2.open()
    assert opened.depth == 30
