"""Removed neurons taken out of the model: a stock LlamaForCausalLM with a smaller `intermediate_size`."""

from __future__ import annotations

from collections.abc import Sequence
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
        # kept ones first, zeroed ones behind them; then back in their order
        chosen = (~mask).sort(stable=True).indices[:width].sort().values
        mlp = layer.mlp
        for linear in (mlp.gate_proj, mlp.up_proj):
            _take_rows(linear, chosen.to(linear.weight.device))
        _take_columns(mlp.down_proj, chosen.to(mlp.down_proj.weight.device))
        mlp.intermediate_size = width
    model.config.intermediate_size = width
    return width


def _take_rows(linear: nn.Linear, rows: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[rows].contiguous(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[rows].contiguous(), requires_grad=False)
    linear.out_features = len(rows)


def _take_columns(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[:, columns].contiguous(), requires_grad=False)
    linear.in_features = len(columns)
