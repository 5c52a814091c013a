"""What the model that runs costs: parameters, bytes, operations a token, and measured tokens a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from copal_core import budget
from copal_core.factored.linear import FactoredLinear, factored_modules, replaced
from copal_core.lowrank._base import Factors


@dataclass(frozen=True)
class Size:
    """Of the whole model, embedding included. bytes: at 16 bits a value. flops: of one token, multiply and add."""

    parameters: int
    bytes: int
    flops_per_token: int


@dataclass(frozen=True)
class Speed:
    """Tokens a second: reading a prompt, and writing one token after another."""

    prefill: float
    decode: float


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
    return Size(parameters, parameters * budget.VALUE_BITS // 8, operations)


@torch.inference_mode()
def measure(model: nn.Module, prompt: int = 256, written: int = 32, repeats: int = 2) -> Speed:
    """The best of `repeats`: a prompt of `prompt` tokens, then `written` tokens one by one with the cache."""
    device = next(model.parameters()).device
    tokens = torch.randint(10, 200, (1, prompt), generator=torch.Generator().manual_seed(0)).to(device)
    prefill, decode = [], []
    for _ in range(repeats):
        started = _now(device)
        found = model(input_ids=tokens, use_cache=True)
        prefill.append(_now(device) - started)
        started = _now(device)
        cache, newest = found.past_key_values, tokens[:, -1:]
        for _ in range(written):
            found = model(input_ids=newest, past_key_values=cache, use_cache=True)
            cache, newest = found.past_key_values, found.logits[:, -1:].argmax(dim=-1)
        decode.append(_now(device) - started)
    return Speed(prompt / min(prefill), written / min(decode))


def compare(
    model: nn.Module, factors: Mapping[str, Factors], prompt: int = 256, written: int = 32
) -> dict[str, dict[str, float]]:
    """'dense' and 'factored': parameters, bytes, flops_per_token, prefill and decode tokens a second."""
    dtype = next(model.parameters()).dtype
    found = {"dense": described(model, prompt, written)}
    small = {name: one for name, one in factors.items() if one.parameters < _dense(model, name)}
    with replaced(model, factored_modules(model, small, dtype)):
        found["factored"] = described(model, prompt, written)
    return found


def _dense(model: nn.Module, name: str) -> int:
    weight = model.get_submodule(name).weight
    return int(weight.numel())  # type: ignore[operator]


def described(model: nn.Module, prompt: int = 256, written: int = 32) -> dict[str, float]:
    """Size and speed in one: parameters, bytes, flops_per_token, prefill and decode tokens a second."""
    return {**size_of(model).__dict__, **measure(model, prompt, written).__dict__}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
