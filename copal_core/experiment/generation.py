"""Text that a model continues with: one token after another, with the model's own key-value cache.

Noise is drawn from the seed alone and added to the scaled logits (Gumbel's way of sampling), so that two models with
the same probabilities write the same text, and a difference on the page is the models' and not the dice's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.errors import InvalidValueError, NumericalError

Weights = Mapping[str, Tensor]
LONGEST = 512  # new tokens


@contextmanager
def whole_model(
    folder: Path, device: str, dtype: str, weights_of: Callable[[int, nn.Module], Weights]
) -> Iterator[nn.Module]:
    """A model with every block in memory and some weights replaced, block by block; freed afterwards.

    One at a time fits where two would not: leave the context before entering another.
    """
    backbone = Backbone(folder, device, dtype, keep_blocks=True)
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            layers = linears(block)
            for name, weight in weights_of(index, block).items():
                layers[name].weight.data = weight.to(layers[name].weight.dtype)
    try:
        yield backbone.causal_lm()
    finally:
        del backbone
        gc.collect()


@torch.inference_mode()
def generate(
    model: nn.Module,
    prompt: Tensor,
    count: int,
    temperature: float = 0.0,
    seed: int = 0,
    end: frozenset[int] = frozenset(),
    visit: Callable[[int], None] = lambda done: None,
) -> list[int]:
    """Up to `count` tokens after `prompt` (length,) int64; fewer when one of `end` comes, which is left out.

    temperature: 0 always takes the likeliest token. visit: called with the number of tokens so far; may raise.
    Raises InvalidValueError for settings that make no sense, NumericalError when the logits are not finite.
    """
    _check(prompt, count, temperature)
    device = next(model.parameters()).device
    noise = torch.Generator().manual_seed(seed)
    newest, cache = prompt[None].to(device), None  # (1, length), later (1, 1)
    written: list[int] = []
    while len(written) < count:
        found = model(input_ids=newest, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = _choose(found.logits[0, -1].float().cpu(), temperature, noise)
        if token in end:
            break
        written.append(token)
        newest, cache = torch.tensor([[token]], device=device), found.past_key_values
        visit(len(written))
    return written


def _choose(logits: Tensor, temperature: float, noise: torch.Generator) -> int:
    """logits (vocabulary,) float32. The same draw for every model at the same place in the text."""
    if not bool(torch.isfinite(logits).all()):
        raise NumericalError("the model's logits are not finite; it cannot go on writing")
    if temperature == 0:
        return int(logits.argmax())
    uniform = torch.rand(logits.shape, generator=noise).clamp_(1e-12, 1 - 1e-7)
    return int((logits / temperature - (-uniform.log()).log()).argmax())


def _check(prompt: Tensor, count: int, temperature: float) -> None:
    if not prompt.numel():
        raise InvalidValueError("the prompt is empty; give the models a few words to continue")
    if not 1 <= count <= LONGEST:
        raise InvalidValueError(f"{count} new tokens are out of range; ask for 1 to {LONGEST}")
    if not 0 <= temperature <= 10:
        raise InvalidValueError(f"temperature = {temperature} is out of range; use 0 (likeliest token) to 10")
