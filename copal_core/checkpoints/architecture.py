"""Rules for LLaMA-shaped checkpoints: the required entries of config.json and the tensors they imply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copal_core.checkpoints.headers import BYTES, TensorHeader, read_json
from copal_core.errors import CheckpointError

ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
PROJECTIONS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True)
class Shape:
    """Sizes that determine the tensors of a LLaMA-shaped model. `rope` describes the position scaling."""

    architecture: str
    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    tied: bool
    rope: str

    def projections(self) -> dict[str, tuple[int, int]]:
        """Return the shapes (out, in) of the seven linear layers of a decoder block."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every weight that the architecture needs, without biases."""
        needed: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for block in range(self.blocks):
            prefix = f"model.layers.{block}"
            for name, shape in self.projections().items():
                needed[f"{prefix}.{PROJECTIONS[name]}.{name}.weight"] = shape
            for norm in ("input_layernorm", "post_attention_layernorm"):
                needed[f"{prefix}.{norm}.weight"] = (self.hidden,)
        needed["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            needed["lm_head.weight"] = (self.vocab, self.hidden)
        return needed


def read_shape(folder: Path) -> Shape:
    """Read the model's sizes from config.json. Raises CheckpointError if the model is not LLaMA-shaped."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"'{folder}' has no config.json; give a folder written by save_pretrained")
    return shape_from_config(read_json(path), str(folder))


def shape_from_config(config: dict[str, Any], where: str) -> Shape:
    """Extract the model's sizes from the content of a config.json.

    Args:
        config: the parsed file.
        where: name of the checkpoint in messages.

    Raises:
        CheckpointError: the model is not LLaMA-shaped.
    """
    architecture = _architecture(config, where)
    hidden = _integer(config, "hidden_size", where)
    heads = _integer(config, "num_attention_heads", where)
    kv_heads = _integer(config, "num_key_value_heads", where, default=heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"'{where}' has {heads} heads for {kv_heads} key-value heads; the first must be a multiple of the second"
        )
    return Shape(
        architecture=architecture,
        blocks=_integer(config, "num_hidden_layers", where),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_integer(config, "head_dim", where, default=max(1, hidden // heads)),
        ffn=_integer(config, "intermediate_size", where),
        vocab=_integer(config, "vocab_size", where),
        context=_integer(config, "max_position_embeddings", where, default=2048),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope=_rope(config),
    )


def _architecture(config: dict[str, Any], where: str) -> str:
    kind = str(config.get("model_type") or "unknown")
    listed = config.get("architectures")
    named = [str(name) for name in listed] if isinstance(listed, list) else []
    if kind not in ARCHITECTURES or (named and not set(named) & set(ARCHITECTURES.values())):
        raise CheckpointError(
            f"'{where}' is {named[0] if named else 'a model'} (model_type {kind}), not a LLaMA architecture; "
            "use a LlamaForCausalLM or MistralForCausalLM checkpoint"
        )
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        raise CheckpointError(
            f"'{where}' stores weights quantized with {method}; use the unquantized checkpoint, or a .gguf file"
        )
    return ARCHITECTURES[kind]


def _integer(config: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"config.json of '{where}' has {key} = {value!r}; it must be a whole number above 0"
        )
    return value


def _rope(config: dict[str, Any]) -> str:
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        return "default"
    kind = str(settings.get("rope_type") or settings.get("type") or "default")
    factor = settings.get("factor")
    return f"{kind} ×{factor:g}" if isinstance(factor, (int, float)) else kind


def check_tensors(shape: Shape, tensors: dict[str, TensorHeader], where: str) -> None:
    """Raise CheckpointError if a required tensor is missing, has another shape, or is not floating point."""
    if shape.blocks > len(tensors):  # an absurd block count is refused before that many names are built
        raise CheckpointError(
            f"'{where}' holds {len(tensors)} tensors, too few for the {shape.blocks} decoder blocks that its "
            "config.json states; copy or download it again"
        )
    for name, expected in shape.tensors().items():
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(
                f"'{where}' lacks the tensor '{name}' that its config.json implies; copy or download it again"
            )
        if tensor.shape != expected:
            raise CheckpointError(
                f"tensor '{name}' of '{where}' has shape {list(tensor.shape)}, but config.json implies "
                f"{list(expected)}; the two do not belong together"
            )
        if tensor.dtype not in BYTES:
            raise CheckpointError(
                f"tensor '{name}' of '{where}' is stored as {tensor.dtype}; float32, float16 or bfloat16 is needed"
            )


def check_tokenizer(folder: Path) -> None:
    """Raise CheckpointError if the folder has no tokenizer files."""
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise CheckpointError(
            f"'{folder}' has no tokenizer (tokenizer.json); save the model's tokenizer into the same folder"
        )
