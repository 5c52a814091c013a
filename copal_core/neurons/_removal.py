"""Removed neurons taken out of the model: a stock LlamaForCausalLM with a smaller `intermediate_size`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.errors import InvalidValueError


def width_after(kept: Sequence[Tensor]) -> int:
    """Neurons in every block of the smaller model: as many as the fullest block keeps. kept: (d_ff,) bool each."""
    return max(int(mask.sum()) for mask in kept)


@torch.no_grad()
def shrink(model: Any, kept: Sequence[Tensor]) -> int:
    """Take removed neurons out of a LlamaForCausalLM, in place; returns the new `intermediate_size`.

    The model's weights are those with zeros for removed neurons; what it computes stays the same. A block that kept
    fewer than the fullest keeps zeroed ones to fill up. kept: (d_ff,) bool for each block. Raises
    InvalidValueError when the masks do not fit the model.
    """
    layers = model.model.layers
    if [len(mask) for mask in kept] != [layer.mlp.down_proj.in_features for layer in layers]:
        raise InvalidValueError("the masks of neurons do not fit this model's feed-forward layers")
    width = width_after(kept)
    for layer, mask in zip(layers, kept, strict=True):
        chosen = _chosen(mask, width)
        mlp = layer.mlp
        for linear in (mlp.gate_proj, mlp.up_proj):
            _take_rows(linear, chosen.to(linear.weight.device))
        _take_columns(mlp.down_proj, chosen.to(mlp.down_proj.weight.device))
        mlp.intermediate_size = width
    model.config.intermediate_size = width
    return width


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


def _take_rows(linear: nn.Linear, rows: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[rows].contiguous(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[rows].contiguous(), requires_grad=False)
    linear.out_features = len(rows)


def _take_columns(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[:, columns].contiguous(), requires_grad=False)
    linear.in_features = len(columns)
