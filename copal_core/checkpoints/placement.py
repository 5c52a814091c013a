"""The blocks of one model on several GPUs, for evaluation and generation: accelerate's device map."""

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
    """Where the parts of a model lie. map: module name -> device, as accelerate wants it."""

    blocks: tuple[torch.device, ...]
    head: torch.device
    map: Mapping[str, int | str]


def free_bytes(device: torch.device) -> int:
    """Bytes to plan with on a device: for a GPU what is free on it or kept by this process for reuse."""
    if device.type != "cuda":
        return residence.memory_budget(str(device))
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + reusable


def on_one(device: torch.device, depth: int) -> Placement:
    """Everything on one device."""
    return Placement((device,) * depth, device, {"": str(device)})


def spread(
    model: nn.Module, dtype: torch.dtype, depth: int, free: Mapping[int | str, int] | None = None
) -> Placement:
    """A model (on the meta device) over all GPUs, whole blocks on each.

    free: bytes by GPU number; those that are free by default. Raises CheckpointError when accelerate is not
    installed or the GPUs together do not hold the model.
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
    found = infer_auto_device_map(
        model, max_memory=dict(limits), no_split_module_classes=kinds, dtype=dtype, clean_result=False
    )
    elsewhere = {str(place) for place in found.values()} & {"cpu", "disk"}
    if elsewhere or not limits:
        size = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
        raise CheckpointError(
            f"the model's {size / 1e9:.1f} GB do not fit on the {len(limits)} GPUs together; "
            "use device cuda, which visits one block at a time"
        )
    blocks = tuple(_device(found, f"model.layers.{index}") for index in range(depth))
    return Placement(blocks, _device(found, "lm_head"), found)


def _device(found: Mapping[str, int | str], name: str) -> torch.device:
    """The device of a module: its own entry, its parent's, or that of what is inside it."""
    parts = name.split(".")
    for length in range(len(parts), -1, -1):
        place = found.get(".".join(parts[:length]))
        if place is not None:
            return _named(place)
    return next(_named(place) for key, place in found.items() if key.startswith(f"{name}."))


def _named(place: int | str) -> torch.device:
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def dispatched(model: nn.Module, placement: Placement) -> nn.Module:
    """Let a whole model that lies on several devices compute: inputs follow the weights."""
    if len({*placement.blocks, placement.head}) == 1:
        return model
    from accelerate import dispatch_model

    return dispatch_model(model, device_map=dict(placement.map))
