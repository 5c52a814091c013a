"""Cost of a model as it runs: parameters, bytes, operations a token, and measured tokens a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import torch
from torch import nn

from copal_core.methods import stored_size
from copal_core.methods.factored.modules import FactoredLinear

ROUNDS = 5
Installed = Callable[[], AbstractContextManager[nn.Module]]  # the model as it is to be measured


@dataclass(frozen=True)
class Size:
    """Of the whole model, embedding included. bytes: at 16 bits a value. flops: of one token, multiply and add."""

    parameters: int
    bytes: int
    flops_per_token: int


def size_of(model: nn.Module) -> Size:
    """Counted from the modules that compute. A tied head is stored once and computes all the same."""
    stored = {id(p): p.numel() for p in model.parameters()}
    operations = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            operations += 2 * module.weight.numel()
        elif isinstance(module, FactoredLinear):
            operations += 2 * (module.left.numel() + module.right.numel())
    parameters = sum(stored.values())
    return Size(parameters, parameters * stored_size.VALUE_BITS // 8, operations)


def by_turns(
    models: Mapping[str, Installed], prompt: int = 256, written: int = 32
) -> dict[str, dict[str, float]]:
    """name -> parameters, bytes, flops_per_token, prefill and decode tokens a second.

    The models take turns, so that a busy moment of the machine meets all of them; each figure is the median of
    `ROUNDS` turns after one that warms up.
    """
    sizes: dict[str, Size] = {}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in range(1 + ROUNDS):
        for name, installed in models.items():
            with installed() as model:
                sizes[name] = sizes.get(name) or size_of(model)
                seconds = _seconds(model, prompt, written)
            if turn:
                taken[name].append(seconds)
    found = {}
    for name, turns in taken.items():
        reading, writing = (statistics.median(side) for side in zip(*turns, strict=True))
        found[name] = {**asdict(sizes[name]), "prefill": prompt / reading, "decode": written / writing}
    return found


@torch.inference_mode()
def _seconds(model: nn.Module, prompt: int, written: int) -> tuple[float, float]:
    """Of reading a prompt, and of writing tokens one by one with the cache."""
    device = next(model.parameters()).device
    tokens = torch.randint(10, 200, (1, prompt), generator=torch.Generator().manual_seed(0)).to(device)
    started = _now(device)
    found = model(input_ids=tokens, use_cache=True)
    read = _now(device)
    cache, newest = found.past_key_values, tokens[:, -1:]
    for _ in range(written):
        found = model(input_ids=newest, past_key_values=cache, use_cache=True)
        cache, newest = found.past_key_values, found.logits[:, -1:].argmax(dim=-1)
    return read - started, _now(device) - read


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
