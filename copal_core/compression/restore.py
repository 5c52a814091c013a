"""The weights a method left at a step, put together from the dense checkpoint and the run store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copal_core.checkpoints.backbone import compute_dtype, linears
from copal_core.checkpoints.layout import module_name
from copal_core.store.run_store import RunStore
from copal_core.system import files

Weights = dict[str, Tensor]


def dense_weights(block: nn.Module) -> Weights:
    """projection -> (out, in), views of the block's own weights."""
    return {name: layer.weight.data for name, layer in linears(block).items()}


def updated_values(weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Weights:
    """What must be stored of updated weights besides the mask: the kept values in order, float32."""
    return {name: weight[kept[name]].float() for name, weight in weights.items()}


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """For the store: the same values as numpy arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def pruned_weights(store: RunStore, method: str, step: int, index: int, block: nn.Module) -> Weights:
    """The weights of block `index` after `step`: masked dense weights, updated ones, factors or neurons."""
    dense, dtype = dense_weights(block), compute_dtype(block)
    if store.has_arrays("neurons", method, step, index):
        return _thinned(store.arrays("neurons", method, step, index), dense, dtype)
    if store.has_arrays("factors", method, step, index):
        return _approximated(store, method, step, index, dense, dtype)
    masks = {name: torch.from_numpy(mask) for name, mask in store.masks(method, step, index).items()}
    if not store.has_arrays("weights", method, step, index):
        return {name: weight * masks[name].to(weight.device) for name, weight in dense.items()}
    values = store.arrays("weights", method, step, index)
    weights = {}
    for name, weight in dense.items():
        full = torch.zeros(weight.shape)
        full[masks[name]] = torch.from_numpy(values[name])
        weights[name] = full.to(weight.device, dtype)
    return weights


def _approximated(
    store: RunStore, method: str, step: int, index: int, dense: Weights, dtype: torch.dtype
) -> Weights:
    """A low-rank method's block: factors, a hybrid's masks, and dense weights where neither is smaller."""
    factors = store.arrays("factors", method, step, index)
    masks = store.masks(method, step, index) if store.has_arrays("masks", method, step, index) else {}
    values = (
        store.arrays("weights", method, step, index)
        if store.has_arrays("weights", method, step, index)
        else {}
    )
    weights = {}
    for name, weight in dense.items():
        full = weight
        if f"{name}.left" in factors:
            left, right = (torch.from_numpy(factors[f"{name}.{side}"]).float() for side in ("left", "right"))
            full = left @ right
        elif name in values:
            full = torch.zeros(weight.shape)
            full[torch.from_numpy(masks[name])] = torch.from_numpy(values[name])
        elif name in masks:
            full = weight * torch.from_numpy(masks[name]).to(weight.device)
        weights[name] = full if full is weight else full.to(weight.device, dtype)
    return weights


def stored_factors(store: RunStore, method: str, step: int) -> files.Arrays:
    """Read the factors of all layers after `step`, as `methods.factored.modules.install` takes them.

    Returns:
        'MODULE.left' (out, r) and 'MODULE.right' (r, in), 16-bit floats; nothing for a method without factors.
    """
    found: files.Arrays = {}
    for block in range(store.info["checkpoint"]["blocks"]):
        if store.has_arrays("factors", method, step, block):
            for key, array in store.arrays("factors", method, step, block).items():
                projection, _, side = key.partition(".")
                if side:  # an empty entry stands for a block without factors
                    found[f"{module_name(block, projection)}.{side}"] = array
    return found


def _thinned(arrays: Mapping[str, NDArray[Any]], dense: Weights, dtype: torch.dtype) -> Weights:
    """A block with neurons removed: zero rows of gate and up, zero columns of down, columns that took over."""
    device = dense["down_proj"].device
    kept = torch.from_numpy(arrays["kept"]).to(device)
    down = dense["down_proj"].float() * kept  # (hidden, d_ff)
    down[:, torch.from_numpy(arrays["columns"]).to(device)] = torch.from_numpy(arrays["down"]).to(device)
    rows = {name: dense[name] * kept[:, None] for name in ("gate_proj", "up_proj")}
    return {**dense, **rows, "down_proj": down.to(dtype)}


def variant(store: RunStore, method: str, step: int) -> Callable[[int, nn.Module], Weights]:
    """For `evaluate`: the weights of every block after `step` of `method`."""
    return lambda index, block: pruned_weights(store, method, step, index, block)
