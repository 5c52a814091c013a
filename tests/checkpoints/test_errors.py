"""Everything that can be wrong with a checkpoint: one clear sentence each."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from copal_core.checkpoints import locate
from copal_core.errors import CheckpointError
from tests.checkpoints.conftest import ModelFactory

Edit = Callable[..., None]


def refusal(name: object) -> str:
    """The one sentence with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        locate(str(name))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


NOWHERE = [
    "",
    "  ",
    "two words",
    "gpt2",
    "a/b/c",
    "/no/such/folder",
    "missing.gguf",
    "n" * 300,
    "~nobody-here/x",
]


@pytest.mark.parametrize("name", NOWHERE)
def test_names_that_lead_nowhere(name: str) -> None:
    assert "give smollm2-135m" in refusal(name)


def test_no_config(model_folder: Path) -> None:
    (model_folder / "config.json").unlink()
    assert "has no config.json" in refusal(model_folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\xff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_damaged_config(model_folder: Path, text: str) -> None:
    (model_folder / "config.json").write_text(text, encoding="latin-1")
    assert "config.json' " in refusal(model_folder)


def test_more_blocks_than_tensors(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, num_hidden_layers=10**9)
    assert "too few for the 1000000000 decoder blocks" in refusal(model_folder)


@pytest.mark.parametrize("changes", [{"hidden_act": "banana"}, {"rope_parameters": {"rope_type": "banana"}}])
def test_a_config_that_transformers_does_not_know(
    model_folder: Path, edit_config: Edit, changes: dict[str, object]
) -> None:
    edit_config(model_folder, **changes)
    with pytest.raises(CheckpointError, match="has a value that transformers does not know .*banana"):
        locate(str(model_folder)).open("cpu", "float32")


@pytest.mark.parametrize("offsets", [[50, 10], [-9000, -5000]])
def test_offsets_outside_the_data(model_folder: Path, offsets: list[int]) -> None:
    path = model_folder / "model.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["counts"] = {"dtype": "I64", "shape": [1], "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert "damaged safetensors header" in refusal(model_folder)


def test_no_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    assert "no *.safetensors file" in refusal(model_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_only(model_folder: Path, name: str) -> None:
    (model_folder / "model.safetensors").unlink()
    (model_folder / name).write_bytes(pickle.dumps({}))
    message = refusal(model_folder)
    assert name in message and "can run code" in message and "convert them to safetensors" in message


def test_a_pickle_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({}))
    assert "is a pickle" in refusal(path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert "not a GGUF file" in refusal(path)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("gpt2", "GPT2LMHeadModel"), ("qwen2", "Qwen2ForCausalLM"), ("mixtral", "MixtralForCausalLM")],
)
def test_other_architectures_are_named(
    model_folder: Path, edit_config: Edit, kind: str, architecture: str
) -> None:
    edit_config(model_folder, model_type=kind, architectures=[architecture])
    message = refusal(model_folder)
    assert architecture in message and kind in message and "LlamaForCausalLM" in message


def test_a_llama_without_language_head(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, architectures=["LlamaForSequenceClassification"])
    assert "LlamaForSequenceClassification" in refusal(model_folder)


def test_quantized_weights(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "gptq" in refusal(model_folder)


@pytest.mark.parametrize("value", [0, -1, "many", None, True, 1.5])
def test_sizes_that_are_no_sizes(model_folder: Path, edit_config: Edit, value: object) -> None:
    edit_config(model_folder, num_hidden_layers=value)
    assert "num_hidden_layers" in refusal(model_folder)


def test_heads_that_do_not_divide(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, num_key_value_heads=3)
    assert "multiple" in refusal(model_folder)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, -1])
def test_truncated_weights(model_folder: Path, kept: float) -> None:
    path = model_folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else int(kept)])
    message = refusal(model_folder)
    assert "truncated" in message and "again" in message


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b"\xff" * 9,
    ],
)
def test_damaged_header(model_folder: Path, header: bytes) -> None:
    (model_folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    message = refusal(model_folder)
    assert "damaged" in message or "cannot be read" in message


def test_a_header_of_absurd_length(model_folder: Path) -> None:
    (model_folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + bytes(64))
    assert "truncated" in refusal(model_folder)


def test_missing_shard(make_model: ModelFactory) -> None:
    folder = make_model(max_shard_size="20KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    message = refusal(folder)
    assert shard.name in message and "shard 2 of" in message


def test_index_and_shards_disagree(make_model: ModelFactory) -> None:
    folder = make_model(max_shard_size="20KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.7.extra"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    assert "model.layers.7.extra" in refusal(folder)


def test_a_shard_outside_the_folder(model_folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../other/model.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside its folder" in refusal(model_folder)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "nonsense"])
def test_damaged_index(model_folder: Path, content: str) -> None:
    (model_folder / "model.safetensors.index.json").write_text(content)
    assert "index.json" in refusal(model_folder)


def test_config_and_weights_of_two_models(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, intermediate_size=64)
    assert "do not belong together" in refusal(model_folder)
    edit_config(model_folder, intermediate_size=48, num_hidden_layers=3)
    assert "lacks the tensor 'model.layers.2." in refusal(model_folder)


def test_untied_config_without_head(model_folder: Path, edit_config: Edit) -> None:
    edit_config(model_folder, tie_word_embeddings=False)
    assert "lm_head.weight" in refusal(model_folder)


def test_no_tokenizer(model_folder: Path) -> None:
    for path in model_folder.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in refusal(model_folder)


def test_damaged_tokenizer(model_folder: Path) -> None:
    (model_folder / "tokenizer.json").write_text("{}")
    checkpoint = locate(str(model_folder))
    with pytest.raises(CheckpointError, match="tokenizer"):
        checkpoint.tokenizer()


def test_shared_server_opens_listed_folders_only(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_SHARED", "1")
    monkeypatch.delenv("COPAL_ROOTS", raising=False)
    assert "shared server" in refusal(model_folder)
    assert "shared server" in refusal("/no/such/folder")  # nor does it tell what exists
    monkeypatch.setenv("COPAL_ROOTS", str(tmp_path / "other"))
    assert "shared server" in refusal(model_folder)
    link = tmp_path / "other"
    link.mkdir()
    (link / "escape").symlink_to(model_folder)
    assert "shared server" in refusal(link / "escape")
    monkeypatch.setenv("COPAL_ROOTS", str(model_folder.parent))
    assert locate(str(model_folder)).folder == model_folder.resolve()
