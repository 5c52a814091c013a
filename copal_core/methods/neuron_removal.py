"""Physical removal of neurons: a standard LlamaForCausalLM with a smaller `intermediate_size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def width_after(kept: Sequence[Tensor]) -> int:
    """Return the number of neurons in each block of the smaller model: the most that any block kept.

    Blocks that kept fewer are padded with zeroed neurons, so that the model's output does not change.

    Args:
        kept: one (d_ff,) bool mask per block.
    """
    return max(int(mask.sum()) for mask in kept)


def without_neurons(
    block: nn.Module, weights: Mapping[str, Tensor], kept: Tensor, width: int
) -> dict[str, Tensor]:
    """Reduce one block's tensors to `width` neurons.

    Args:
        block: the dense block, whose biases are reduced as well.
        weights: projection -> (out, in), with zeros for removed neurons.
        kept: (d_ff,) bool.
        width: as `width_after` returns it.

    Returns:
        Tensors by projection, biases as 'projection.bias'.
    """
    tensors = dict(weights)
    chosen = _chosen(kept, width).to(tensors["down_proj"].device)
    tensors["down_proj"] = tensors["down_proj"][:, chosen]
    for name in ("gate_proj", "up_proj"):
        tensors[name] = tensors[name][chosen]
        bias = block.get_submodule(f"mlp.{name}").bias
        if isinstance(bias, Tensor):
            tensors[f"{name}.bias"] = bias[chosen]
    return tensors


def _chosen(kept: Tensor, width: int) -> Tensor:
    """Return the indices of the kept neurons, padded with removed ones, in ascending order: (width,)."""
    return (~kept).sort(stable=True).indices[:width].sort().values
