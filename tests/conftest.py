"""Small random checkpoints, texts and finished runs that many tests share."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from copal_core.config import Protocol, RunConfig, Structure, Windows
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system import sharing

# a shared machine has slow moments; the same examples every time, so that a failure repeats
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

# A page that is opened by a test has no server around it, and Streamlit says so in each of its threads. These two
# sentences are dropped, also when a thread outlives pytest's capturing; whatever else Streamlit logs is shown.
_NO_SERVER = {
    "streamlit.runtime.scriptrunner_utils.script_run_context": "missing ScriptRunContext",
    "streamlit.runtime.caching.cache_data_api": "No runtime found, using MemoryCacheStorageManager",
}
for _logger, _sentence in _NO_SERVER.items():
    logging.getLogger(_logger).addFilter(
        lambda record, sentence=_sentence: sentence not in record.getMessage()
    )

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
    "initializer_range": 0.2,  # large enough that activations differ clearly from token to token
}
SENTENCES = {
    "code.txt": "def area_{0}(radius):\n    value = {0} * radius ** 2\n    return value - {1}\n\n",
    "drama.txt": "KING {0}. What say you, lord {1}? The night is dark, and {0} horses wait.\n\n",
    "terms.txt": "{0}. The licensee may copy part {1} of the work, provided that notice {0} is kept.\n\n",
}


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """Tests share the machine, and small matrices gain nothing from a second thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nobody_asks() -> Iterator[None]:
    """A page opened in a test tells the core whom to ask who is there; the next test has no browser to ask."""
    yield
    sharing.identify_by(None)


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
    tokenizer.train_from_iterator([text.format(3, 7) for text in SENTENCES.values()] * 20, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[..., Path]:
    """make_model(model=None, max_shard_size=..., **config) -> a folder that transformers wrote, seeded."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(model: Any = None, max_shard_size: str = "1GB", **config: Any) -> Path:
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
def small_model(make_model: Callable[..., Path]) -> Path:
    """Two blocks, grouped-query attention, tied embeddings, random weights. Not to be changed."""
    return make_model()


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Three domains as files: specifications in the order of the steps."""
    folder = tmp_path_factory.mktemp("texts")
    for name, sentence in SENTENCES.items():
        lines = (sentence.format(i * 7919 % 1009, i * i % 4093) for i in range(400))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return tuple(str(folder / name) for name in SENTENCES)


@pytest.fixture(scope="session")
def small_config(small_model: Path, texts: tuple[str, ...]) -> Callable[..., RunConfig]:
    """small_config(methods, domains=2, structure=..., **protocol) on the random checkpoint, in float32."""

    def make(
        methods: list[str], domains: int = 2, structure: Structure | None = None, **protocol: Any
    ) -> RunConfig:
        settings = {"calibration": Windows.parse("3x24"), "evaluation": Windows.parse("2x24"), "map_size": 8}
        return RunConfig(
            checkpoint=str(small_model),
            domains=texts[:domains],
            methods=tuple(methods),
            structure=structure or Structure(),
            protocol=Protocol(**{**settings, "device": "cpu", "dtype": "float32", **protocol}),
        )

    return make


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """An empty folder of runs, which the product finds by itself too; no recorded runs."""
    root = tmp_path / "runs"
    monkeypatch.setenv("COPAL_RUNS", str(root))
    return Runs(root, recorded=tmp_path / "none")


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]
) -> Callable[[str, str], RunStore]:
    """finished(structure, propagate) -> a run of every criterion with every strategy over three domains."""
    from copal_core.experiment import loop
    from copal_core.methods.criteria import CRITERIA
    from copal_core.methods.strategies import STRATEGIES

    methods = [f"{criterion}:{strategy}" for criterion in CRITERIA.names() for strategy in STRATEGIES.names()]

    @cache
    def compute(structure: str, propagate: str) -> RunStore:
        pattern, _, group = structure.partition(" ")
        asked = Structure.parse(pattern, group=group or None)
        config = small_config(methods, domains=3, structure=asked, propagate=propagate)
        store = Runs(tmp_path_factory.mktemp("finished")).create(config)
        loop.run(store)
        return store

    return compute


@pytest.fixture(scope="session")
def same_outcome() -> Callable[[RunStore, RunStore], None]:
    """same_outcome(a, b): fails unless two runs hold the same bytes of arrays and the same records."""

    def compare(one: RunStore, other: RunStore) -> None:
        for kind in ("masks", "memory", "weights", "maps", "windows"):
            names = sorted(
                path.relative_to(one.folder) for path in (one.folder / kind).rglob("*.safetensors")
            )
            theirs = sorted(
                path.relative_to(other.folder) for path in (other.folder / kind).rglob("*.safetensors")
            )
            assert names == theirs
            for name in names:
                assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
        for table in ("perplexity", "layers", "overlaps", "warnings"):
            assert getattr(one, table)().equals(getattr(other, table)()), table

    return compare
