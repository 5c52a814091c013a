"""Conversion of a GGUF file to a float32 safetensors folder that transformers can load.

Tensors are dequantised and written one at a time, so that a model of any size needs memory for one tensor. Only the
tokenizer is converted by transformers. llama.cpp stores q and k with the two halves of each head interleaved for its
own rotary embedding; that permutation is undone here.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from copal_core.checkpoints.cache import Report
from copal_core.errors import CheckpointError

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"  # LLaMA 3's frequency scaling, stored as one divisor per frequency
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_METADATA_SHARE, _TENSOR_SHARE = 30, 40  # of 100 progress steps; the remaining ones are for the tokenizer


@dataclass(frozen=True)
class _Source:
    """Content of a GGUF file: metadata and memory-mapped tensors."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Any]  # name in transformers -> gguf ReaderTensor
    rope_factors: np.ndarray | None  # (head_dim / 2,)

    def get(self, key: str, default: Any = None) -> Any:
        field = self.fields.get(key)
        return default if field is None else field.contents()


def convert(path: Path, folder: Path, report: Report) -> None:
    """Write config.json, model.safetensors (float32) and the tokenizer of a GGUF file into `folder`.

    Args:
        path: the GGUF file.
        folder: an existing folder to write into.
        report: receives label, done and total.

    Raises:
        CheckpointError: the file is not GGUF, is truncated, has another architecture than LLaMA's or an unknown
            quantization, or the disk is too full.
    """
    report(f"Reading {path.name}", 0, 100)
    source = _read(path)
    config = _config(source)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_tensors(source, config, folder / "model.safetensors", report)
    report("Converting the tokenizer", _METADATA_SHARE + _TENSOR_SHARE, 100)
    _write_tokenizer(path, folder)
    report(f"Converted {path.name}", 100, 100)


def _read(path: Path) -> _Source:
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read ({error.strerror or error})") from None
    if magic != b"GGUF":
        raise CheckpointError(
            f"'{path}' is not a GGUF file (it does not start with 'GGUF'); download it again"
        )
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception:  # noqa: BLE001  on a truncated file the reader passes on whatever numpy raises
        raise CheckpointError(f"'{path}' is truncated or damaged; download it again") from None
    fields = dict(reader.fields)
    architecture = (
        fields["general.architecture"].contents() if "general.architecture" in fields else "unknown"
    )
    if architecture != "llama" or "llama.expert_count" in fields:
        kind = "a mixture of experts" if architecture == "llama" else f"architecture '{architecture}'"
        raise CheckpointError(
            f"'{path}' is {kind}, not a LLaMA architecture; use a LLaMA or Mistral GGUF file"
        )
    if "split.count" in fields and int(fields["split.count"].contents()) > 1:
        raise CheckpointError(
            f"'{path}' is one part of a split GGUF file; merge the parts with llama-gguf-split"
        )
    tensors, factors = {}, None
    for tensor in reader.tensors:
        if tensor.name == _ROPE_FACTORS:
            factors = np.array(tensor.data, dtype=np.float32)
        else:
            tensors[_name(tensor.name, path)] = tensor
    return _Source(path, fields, tensors, factors)


def _name(name: str, path: Path) -> str:
    """Translate a GGUF tensor's name to transformers. Raises CheckpointError if LLaMA has no such tensor."""
    match = re.fullmatch(r"(?:blk\.(?P<block>\d+)\.)?(?P<stem>[a-z_]+)\.(?P<kind>weight|bias)", name)
    if match is not None:
        block, stem = match["block"], match["stem"]
        target = _TOP.get(stem) if block is None else _BLOCK.get(stem)
        if target is not None:
            prefix = "" if block is None else f"model.layers.{block}."
            return f"{prefix}{target}.{match['kind']}"
    raise CheckpointError(
        f"'{path}' has a tensor '{name}' that a LLaMA model does not have; use another file"
    )


def _config(source: _Source) -> dict[str, Any]:
    """Build transformers' config.json from the file's metadata."""

    def required(key: str) -> Any:
        value = source.get(f"llama.{key}")
        if value is None:
            raise CheckpointError(f"'{source.path}' does not state llama.{key}; use a complete GGUF file")
        return value

    hidden, heads = int(required("embedding_length")), int(required("attention.head_count"))
    embedding = source.tensors.get("model.embed_tokens.weight")
    if embedding is None:
        raise CheckpointError(f"'{source.path}' has no token embedding; use a complete GGUF file")
    head_dim = source.get("llama.attention.key_length") or source.get("llama.rope.dimension_count")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": int(required("feed_forward_length")),
        "num_hidden_layers": int(required("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(source.get("llama.attention.head_count_kv", heads)),
        "head_dim": int(head_dim or hidden // heads),
        "max_position_embeddings": int(required("context_length")),
        "rms_norm_eps": float(required("attention.layer_norm_rms_epsilon")),
        "rope_theta": float(source.get("llama.rope.freq_base", 10000.0)),
        "vocab_size": int(embedding.shape[1]),
        "tie_word_embeddings": "lm_head.weight" not in source.tensors,
        "attention_bias": any(name.endswith("_proj.bias") and "self_attn" in name for name in source.tensors),
        "mlp_bias": any(name.endswith("_proj.bias") and ".mlp." in name for name in source.tensors),
        "dtype": "float32",
        "use_cache": True,
    }
    for key, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        token = source.get(f"tokenizer.ggml.{key}_token_id")
        if token is not None:
            config[f"{name}_token_id"] = int(token)
    scaling = _rope_scaling(source, config)
    return {**config, "rope_scaling": scaling} if scaling else config


def _rope_scaling(source: _Source, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the file's position scaling. Raises CheckpointError if transformers cannot express it."""
    kind = source.get("llama.rope.scaling.type", "none")
    if source.rope_factors is not None:
        scaling = {"rope_type": "llama3", "factor": float(source.rope_factors.max()), **_LLAMA3}
        expected = _llama3_factors(scaling, config["rope_theta"], config["head_dim"])
        if expected.shape == source.rope_factors.shape and np.allclose(
            expected, source.rope_factors, rtol=1e-3
        ):
            return scaling
        raise CheckpointError(
            f"'{source.path}' scales positions in a way that is not LLaMA 3's; use its safetensors"
        )
    if kind == "none":
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(source.get("llama.rope.scaling.factor", 1.0))}
    raise CheckpointError(
        f"'{source.path}' uses '{kind}' position scaling, which is not read from GGUF; use the model's safetensors"
    )


def _llama3_factors(scaling: dict[str, Any], theta: float, head_dim: int) -> np.ndarray:
    """Compute LLaMA 3's divisor of each rotary frequency, (head_dim / 2,) float64.

    It is 1 for short waves, `factor` for long ones, and interpolated in between.
    """
    frequencies = theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)  # (head_dim / 2,)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _write_tensors(source: _Source, config: dict[str, Any], path: Path, report: Report) -> None:
    """Write model.safetensors one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in source.tensors.items():
        shape = [int(length) for length in reversed(tensor.shape)]  # GGUF lists the fastest axis first
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    free = shutil.disk_usage(path.parent).free
    if offset > free:
        raise CheckpointError(
            f"'{source.path}' takes {offset / 1e9:.1f} GB in float32 and '{path.parent.parent}' has "
            f"{free / 1e9:.1f} GB free; make room, or set COPAL_CACHE to another disk"
        )
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in source.tensors.items():
            _write_tensor(source, config, name, tensor, file)
            done = _METADATA_SHARE + _TENSOR_SHARE * header[name]["data_offsets"][1] // offset
            report(f"Dequantising {source.path.name}", done, 100)


def _write_tensor(source: _Source, config: dict[str, Any], name: str, tensor: Any, file: IO[bytes]) -> None:
    from gguf import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        raise CheckpointError(
            f"'{source.path}' is quantized as {tensor.tensor_type.name}, which cannot be read; use Q4_K, Q8_0 or F16"
        ) from None
    weight = np.asarray(values, dtype=np.float32).reshape([int(length) for length in reversed(tensor.shape)])
    for projection, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if f".{projection}." in name:
            weight = _halves(weight, config[heads])
    file.write(np.ascontiguousarray(weight).astype("<f4", copy=False).data)


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's rows of a (heads·head_dim, ...) weight from interleaved pairs to two halves."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _write_tokenizer(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001  the tokenizers library raises bare Exceptions
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"the tokenizer inside '{path}' cannot be read ({reason}); use another file"
        ) from None
