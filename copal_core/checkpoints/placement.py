"""Placement of a model's blocks on one device or several GPUs, by accelerate's device map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from copal_core.checkpoints import residence
from copal_core.errors import CheckpointError

ALL = "cuda:all"  # the device that stands for every visible GPU


@dataclass(frozen=True)
class Placement:
    """Devices of a model's parts. `map` is accelerate's device map: module name -> device."""

    blocks: tuple[torch.device, ...]
    head: torch.device
    map: Mapping[str, int | str]


def free_bytes(device: torch.device) -> int:
    """Return the bytes available on a device: on a GPU the free memory and what this process has cached for reuse."""
    if device.type != "cuda":
        return residence.memory_budget(str(device))
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + reusable


def on_one(device: torch.device, depth: int) -> Placement:
    """Place everything on one device."""
    return Placement((device,) * depth, device, {"": str(device)})


def spread(
    model: nn.Module, dtype: torch.dtype, depth: int, free: Mapping[int | str, int] | None = None
) -> Placement:
    """Distribute a model over all GPUs, in whole blocks.

    Args:
        model: on the meta device.
        dtype: of the computation.
        depth: number of blocks.
        free: bytes by GPU index; measured by default.

    Raises:
        CheckpointError: accelerate is not installed, or the model does not fit on the GPUs.
    """
    try:
        from accelerate import infer_auto_device_map
        from accelerate.utils import get_balanced_memory
    except ImportError:
        raise CheckpointError(
            f"device '{ALL}' needs the package accelerate; install it with: pip install 'accelerate>=1.15,<2'"
        ) from None
    kinds = list(getattr(model, "_no_split_modules", None) or ())
    if free is None:
        free = get_balanced_memory(model, dtype=dtype, no_split_module_classes=kinds)
    limits = {number: size for number, size in free.items() if number not in ("cpu", "disk")}
    device_map = infer_auto_device_map(
        model, max_memory=dict(limits), no_split_module_classes=kinds, dtype=dtype, clean_result=False
    )
    elsewhere = {str(device) for device in device_map.values()} & {"cpu", "disk"}
    if elsewhere or not limits:
        size = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
        raise CheckpointError(
            f"the model's {size / 1e9:.1f} GB do not fit on the {len(limits)} GPUs together; "
            "use device cuda, which streams one block at a time"
        )
    blocks = tuple(_device_of(device_map, f"model.layers.{index}") for index in range(depth))
    return Placement(blocks, _device_of(device_map, "lm_head"), device_map)


def _device_of(device_map: Mapping[str, int | str], name: str) -> torch.device:
    """Return the device of a module: of its own entry, of its parent's, or of its first child's."""
    parts = name.split(".")
    for length in range(len(parts), -1, -1):
        entry = device_map.get(".".join(parts[:length]))
        if entry is not None:
            return _as_device(entry)
    return next(_as_device(entry) for key, entry in device_map.items() if key.startswith(f"{name}."))


def _as_device(entry: int | str) -> torch.device:
    return torch.device("cuda", entry) if isinstance(entry, int) else torch.device(entry)


def dispatched(model: nn.Module, placement: Placement) -> nn.Module:
    """Prepare a model on several devices for computing: inputs are moved to the weights."""
    if len({*placement.blocks, placement.head}) == 1:
        return model
    from accelerate import dispatch_model

    return dispatch_model(model, device_map=dict(placement.map))
