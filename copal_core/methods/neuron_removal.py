"""Removed neurons taken out of the model: a stock LlamaForCausalLM with a smaller `intermediate_size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def width_after(kept: Sequence[Tensor]) -> int:
    """Neurons in every block of the smaller model: as many as the fullest block keeps. kept: (d_ff,) bool each.

    A block that kept fewer fills up with zeroed ones, so that what the model computes stays the same.
    """
    return max(int(mask.sum()) for mask in kept)


def without_neurons(
    block: nn.Module, weights: Mapping[str, Tensor], kept: Tensor, width: int
) -> dict[str, Tensor]:
    """One block's tensors with `width` neurons, by projection, biases as 'projection.bias'.

    weights: projection -> (out, in) with zeros for removed neurons. kept: (d_ff,) bool.
    """
    found = dict(weights)
    chosen = _chosen(kept, width).to(found["down_proj"].device)
    found["down_proj"] = found["down_proj"][:, chosen]
    for name in ("gate_proj", "up_proj"):
        found[name] = found[name][chosen]
        bias = block.get_submodule(f"mlp.{name}").bias
        if isinstance(bias, Tensor):
            found[f"{name}.bias"] = bias[chosen]
    return found


def _chosen(kept: Tensor, width: int) -> Tensor:
    """(width,) the kept neurons, filled up with removed ones, in their order."""
    return (~kept).sort(stable=True).indices[:width].sort().values
