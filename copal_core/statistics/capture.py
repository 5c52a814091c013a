"""Hooks that gather statistics while a decoder block computes, removed when the context ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import linears
from copal_core.checkpoints.layout import GROUPS
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics, Statistic


class InputsSeen(Exception):
    """Stops a block's forward pass once the input of its last projection is known (see `capture`)."""


@contextmanager
def capture(
    block: nn.Module, statistics: Sequence[Statistic], stop_at_last_input: bool = False
) -> Iterator[BlockStatistics]:
    """Sum `statistics` over every token that passes through `block` within the context.

    Args:
        block: a decoder block.
        statistics: to gather.
        stop_at_last_input: raise InputsSeen in the forward pass before the last projection computes, for a caller
            that needs no output of the block. Ignored if a statistic needs outputs.
    """
    gathered = BlockStatistics()
    layers = linears(block)
    handles = []
    try:
        for group, names in GROUPS.items():
            members = [layers[name] for name in names]
            wanted = [
                statistic for statistic in statistics if statistic.groups is None or group in statistic.groups
            ]
            hook = _GroupHook(gathered, group, members, wanted)
            if any(statistic.needs_outputs for statistic in wanted):
                handles += [layers[name].register_forward_hook(hook.on_output(name)) for name in names]
            else:
                handles.append(members[0].register_forward_pre_hook(hook.on_input()))
        if stop_at_last_input and not any(statistic.needs_outputs for statistic in statistics):
            handles.append(layers["down_proj"].register_forward_pre_hook(_stop))
        yield gathered
    finally:
        for handle in handles:
            handle.remove()


def _stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    raise InputsSeen


class _GroupHook:
    """Collects the outputs of all projections of a group, then updates its totals."""

    def __init__(
        self,
        gathered: BlockStatistics,
        group: str,
        members: Sequence[nn.Linear],
        statistics: Sequence[Statistic],
    ) -> None:
        self._group = gathered.groups.setdefault(group, GroupStatistics())
        self._names = GROUPS[group]
        self._biases = {name: member.bias for name, member in zip(self._names, members, strict=True)}
        self._statistics = statistics
        self._outputs: dict[str, Tensor] = {}
        weights = [member.weight for member in members]
        needs_weight = any(statistic.needs_weight for statistic in statistics)
        self._weight = torch.cat(weights) if needs_weight else None  # (out, in)
        rows, columns = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
        for statistic in statistics:
            self._group.totals[statistic.name] = statistic.zeros(rows, columns, weights[0].device)

    def on_input(self) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._update(arguments[0])

        return hook

    def on_output(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            bias = self._biases[name]
            # without the bias, which no perturbation of weight or input changes
            self._outputs[name] = output if bias is None else output - bias
            if len(self._outputs) == len(self._names):
                self._update(arguments[0])

        return hook

    def _update(self, inputs: Tensor) -> None:
        x = inputs.reshape(-1, inputs.shape[-1])  # (tokens, in)
        ys = [self._outputs[name].reshape(x.shape[0], -1) for name in self._names if name in self._outputs]
        for statistic in self._statistics:
            statistic.update(self._group.totals[statistic.name], x, ys, self._weight)
        self._group.tokens += x.shape[0]
        self._outputs = {}
