"""Description of a checkpoint before it is loaded. No torch, so that a page can show it without delay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from copal_core.checkpoints import devices
from copal_core.checkpoints.architecture import Shape, check_tensors, check_tokenizer, read_shape
from copal_core.checkpoints.headers import NAMES, TensorHeader, read_tensors

PARTS = ("embedding", "attention", "mlp", "norms", "head")


@dataclass(frozen=True)
class Description:
    """Sizes of a checkpoint and its memory requirements.

    Attributes:
        parameters: count by part (embedding, attention, mlp, norms, head; head is 0 when tied).
        total: parameters of all parts.
        stored_dtype: of most weights in the files.
        file_bytes: size of all weight files.
        memory_free: bytes available on `device`.
        device, dtype, dtype_reason: chosen for the computation, and the reason in words.
        projections: (out, in) of the seven linear layers of a decoder block.
    """

    architecture: str
    parameters: dict[str, int]
    total: int
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
    stored_dtype: str
    file_bytes: int
    memory_free: int
    device: str
    dtype: str
    dtype_reason: str
    projections: dict[str, tuple[int, int]]

    def memory_needed(self, dtype: str | None = None) -> int:
        """Return the bytes of the weights in `dtype` (the chosen one by default), without statistics or activations."""
        return self.total * devices.DTYPE_BYTES[dtype or self.dtype]

    @property
    def queries_per_key(self) -> int:
        """Number of query heads that share one key-value head (1 = no grouping)."""
        return self.heads // self.kv_heads


def inspect(folder: Path) -> tuple[Shape, dict[str, TensorHeader]]:
    """Check that a folder is complete and LLaMA-shaped, reading headers only.

    Returns:
        The model's sizes, and name -> header of every tensor.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of another architecture.
    """
    shape = read_shape(folder)
    tensors = read_tensors(folder)
    check_tensors(shape, tensors, str(folder))
    check_tokenizer(folder)
    return shape, tensors


def describe(folder: Path, device: str = "auto", dtype: str = "auto") -> Description:
    """Describe a checkpoint's folder. Raises CheckpointError if it is incomplete."""
    shape, tensors = inspect(folder)
    device, dtype, reason = devices.choose(device, dtype)
    parameters = dict.fromkeys(PARTS, 0)
    stored: Counter[str] = Counter()
    for tensor in tensors.values():
        part = part_of(tensor.name)
        if part is None or (part == "head" and shape.tied):
            continue
        parameters[part] += tensor.size
        stored[tensor.dtype] += tensor.size
    return Description(
        architecture=shape.architecture,
        parameters=parameters,
        total=sum(parameters.values()),
        blocks=shape.blocks,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        ffn=shape.ffn,
        vocab=shape.vocab,
        context=shape.context,
        tied=shape.tied,
        rope=shape.rope,
        stored_dtype=NAMES.get(stored.most_common(1)[0][0], "mixed"),
        file_bytes=sum(path.stat().st_size for path in {tensor.file for tensor in tensors.values()}),
        memory_free=devices.memory_free(device),
        device=device,
        dtype=dtype,
        dtype_reason=reason,
        projections=shape.projections(),
    )


def part_of(name: str) -> str | None:
    """Return the part of the model that a tensor belongs to; None for buffers, which are not parameters."""
    if "rotary_emb" in name:
        return None
    for part, marks in (
        ("embedding", ("embed_tokens.",)),
        ("attention", (".self_attn.",)),
        ("mlp", (".mlp.",)),
        ("head", ("lm_head.",)),
        ("norms", ("norm.",)),
    ):
        if any(mark in name for mark in marks):
            return part
    return None
