"""GGUF files written here, converted, and compared with the original weights and with transformers' reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from copal_core.checkpoints import locate
from copal_core.checkpoints.conversion import _llama3_factors
from copal_core.errors import CheckpointError
from tests.checkpoints.conftest import SIZES, ModelFactory

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WriteGguf = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path / "cache"))


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, block, rest = stem.split(".", 3)
        return f"blk.{block}.{NAMES[rest]}.weight"
    return f"{NAMES[stem]}.weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of a head's rows: first, middle, second, middle + 1, ..."""
    rows = weight.shape[0] // heads
    order = [head * rows + (i // 2) + (i % 2) * (rows // 2) for head in range(heads) for i in range(rows)]
    return weight[order]


@pytest.fixture
def write_gguf(tmp_path: Path, tokenizer_folder: Path) -> WriteGguf:
    """write_gguf(folder of a model, quantization, **metadata, extra tensors) -> the file."""
    import gguf
    from safetensors.numpy import load_file

    def write(
        model: Path,
        quantization: str = "F32",
        architecture: str = "llama",
        metadata: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray] | None = None,
    ) -> Path:
        config = json.loads((model / "config.json").read_text())
        path = tmp_path / f"{architecture}-{quantization}.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name("a small one")
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(config["head_dim"])
        for key, value in (metadata or {}).items():
            (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
        _add_tokenizer(writer, tokenizer_folder, config["vocab_size"])
        kind = gguf.GGMLQuantizationType[quantization]
        for name, weight in load_file(model / "model.safetensors").items():
            for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
                if projection in name:
                    weight = interleave(weight, config[heads])
            if weight.ndim == 1:
                writer.add_tensor(gguf_name(name), weight)
            else:
                writer.add_tensor(gguf_name(name), gguf.quantize(weight, kind), raw_dtype=kind)
        for name, weight in (tensors or {}).items():
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add_tokenizer(writer: Any, folder: Path, size: int) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in content["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


@pytest.mark.parametrize("tied", [True, False])
def test_float_gguf_converts_to_the_original_bytes(
    make_model: ModelFactory, write_gguf: WriteGguf, tied: bool
) -> None:
    from safetensors.numpy import load_file

    model = make_model(tie_word_embeddings=tied)
    steps: list[tuple[str, int, int]] = []
    path = write_gguf(model)
    checkpoint = locate(str(path), lambda *step: steps.append(step))
    original, converted = (load_file(f / "model.safetensors") for f in (model, checkpoint.folder))
    assert set(converted) == set(original)
    for name in original:
        np.testing.assert_array_equal(converted[name], original[name], err_msg=name)
    assert checkpoint.describe().tied is tied
    done = [step[1] for step in steps]
    assert done == sorted(done) and done[-1] == 100 and len(done) > 20
    text = "the mask stays"
    assert checkpoint.tokenizer()(text).input_ids == locate(str(model)).tokenizer()(text).input_ids
    again: list[object] = []
    assert locate(str(path), lambda *step: again.append(step)).folder == checkpoint.folder
    assert not again  # converted once


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q4_1"])
def test_quantized_gguf_equals_the_reader_of_transformers(
    make_model: ModelFactory, write_gguf: WriteGguf, quantization: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(make_model(intermediate_size=64), quantization)
    ours = AutoModelForCausalLM.from_pretrained(locate(str(path)).folder)
    stock = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    state = ours.state_dict()
    for name, weight in stock.state_dict().items():
        assert torch.equal(state[name], weight), name
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, stock(ids).logits)


def test_llama3_scaling_is_recognised(make_model: ModelFactory, write_gguf: WriteGguf) -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 10000.0,
    }
    config = LlamaConfig(**{**SIZES, "head_dim": 64, "rope_parameters": scaling})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 10000.0 ** -(np.arange(0, 64, 2) / 64)
    factors = (plain / scaled.numpy()).astype(np.float32)
    np.testing.assert_allclose(_llama3_factors(scaling, 10000.0, 64), factors, rtol=1e-5)
    model = make_model(head_dim=64)
    checkpoint = locate(str(write_gguf(model, tensors={"rope_freqs.weight": factors})))
    assert checkpoint.describe().rope == "llama3 ×32"
    bent = factors * np.linspace(1, 2, len(factors), dtype=np.float32)
    with pytest.raises(CheckpointError, match="LLaMA 3's"):
        locate(str(write_gguf(model, tensors={"rope_freqs.weight": bent})))


def test_linear_scaling_is_kept_and_others_refused(make_model: ModelFactory, write_gguf: WriteGguf) -> None:
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert locate(str(write_gguf(make_model(), metadata=linear))).describe().rope == "linear ×4"
    with pytest.raises(CheckpointError, match="'yarn' position scaling"):
        locate(str(write_gguf(make_model(), metadata={"llama.rope.scaling.type": "yarn"})))


def test_other_architectures_are_refused_by_name(make_model: ModelFactory, write_gguf: WriteGguf) -> None:
    with pytest.raises(CheckpointError, match="architecture 'gpt2'"):
        locate(str(write_gguf(make_model(), architecture="gpt2")))
    with pytest.raises(CheckpointError, match="mixture of experts"):
        locate(str(write_gguf(make_model(), metadata={"llama.expert_count": 8.0})))
    with pytest.raises(CheckpointError, match="one part of a split"):
        locate(str(write_gguf(make_model(), metadata={"split.count": 2.0})))
    extra = {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_sinks"):
        locate(str(write_gguf(make_model(), tensors=extra)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.999])
def test_truncated_gguf(
    make_model: ModelFactory, write_gguf: WriteGguf, tmp_path: Path, share: float
) -> None:
    path = write_gguf(make_model())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated or damaged|not a GGUF file"):
        locate(str(path))
    assert not list((tmp_path / "cache").glob("checkpoints/[a-z]*")), "nothing half-made is left"


def test_too_little_disk_space(
    make_model: ModelFactory, write_gguf: WriteGguf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match="GB in float32"):
        locate(str(write_gguf(make_model())))
