"""One text through several models: the loss of every token, and what each goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from copal_core.analysis.diagnosis.kept import DENSE, Result, require_kept
from copal_core.analysis.diagnosis.pieces import pieces_of
from copal_core.checkpoints import Checkpoint
from copal_core.checkpoints.backbone import Backbone
from copal_core.compression.restore import variant
from copal_core.config import Protocol
from copal_core.errors import InvalidValueError, RunError
from copal_core.experiment.evaluation import no_change, token_losses
from copal_core.experiment.generation import generate, whole_model
from copal_core.store.run_store import RunStore

Report = Callable[[str, int, int], None]
Model = tuple[RunStore, Result]  # a run, and one of its results


def same_checkpoint(models: Sequence[Model]) -> None:
    """Raises RunError when the results are not of the same weights, or cannot be rebuilt."""
    prints = {store.info.get("checkpoint", {}).get("fingerprint") for store, _ in models}
    if len(prints) > 1:
        raise RunError("the runs are of different checkpoints; compare results of one checkpoint")
    for store, result in models:
        require_kept(store, result)


def compared_losses(
    backbone: Backbone, tokens: Tensor, models: Sequence[Model], report: Report
) -> list[list[float | None]]:
    """Loss in nats of every token in each model; None where nothing comes before it.

    tokens: (length,) int64. Text beyond the model's context goes through in windows of that length.
    """
    context = int(getattr(backbone.config, "max_position_embeddings", len(tokens)))
    windows = [part[None] for part in tokens.split(max(2, context))]
    total = len(models) * backbone.depth
    found: list[list[float | None]] = []
    for number, (store, result) in enumerate(models):

        def visit(block: int, number: int = number, result: Result = result) -> None:
            report(f"reading the text with {result}", number * backbone.depth + block + 1, total)

        long_enough = [window for window in windows if window.shape[1] > 1]
        losses = token_losses(backbone, long_enough, _weights(store, result), visit)
        row: list[float | None] = []
        for part in losses:
            row += [None, *map(float, part[0])]
        found.append(row + [None] * (len(tokens) - len(row)))
    return found


def described(tokens: Sequence[int], losses: Sequence[Sequence[float | None]], tokenizer: Any) -> list[Any]:
    """[text, losses by model] of every piece of text: sums over its tokens, None where nothing was predicted."""
    rows = []
    for piece in pieces_of(tokens, tokenizer):
        sums = [_sum(row[piece.start : piece.stop]) for row in losses]
        rows.append([piece.text, *sums])
    return rows


def continuations(
    checkpoint: Checkpoint,
    protocol: Protocol,
    prompt: Sequence[int],
    models: Sequence[Model],
    count: int,
    temperature: float,
    seed: int,
    report: Report,
) -> list[str]:
    """What each model writes after the prompt; one whole model in memory at a time.

    Raises RunError when it does not fit there.
    """
    description = checkpoint.describe(protocol.device, protocol.dtype)
    if description.memory_needed() > description.memory_free:
        raise RunError(
            f"writing text needs the whole model in memory, {description.memory_needed() / 2**30:.1f} GiB, and "
            f"{description.memory_free / 2**30:.1f} GiB is free; close programs, or compare losses only"
        )
    if len(prompt) + count > description.context:
        raise InvalidValueError(
            f"{len(prompt)} tokens of prompt and {count} new ones exceed the context of {description.context}"
        )
    tokenizer = checkpoint.tokenizer()
    end = frozenset({tokenizer.eos_token_id} - {None})
    texts = []
    for number, (store, result) in enumerate(models):

        def visit(done: int, number: int = number, result: Result = result) -> None:
            report(f"writing with {result}", number * count + done, len(models) * count)

        report(f"opening {result}", number * count, len(models) * count)
        opened = whole_model(
            checkpoint.folder, description.device, description.dtype, _weights(store, result)
        )
        with opened as model:
            written = generate(model, torch.tensor(prompt), count, temperature, seed, end, visit)
        texts.append("".join(piece.text for piece in pieces_of(written, tokenizer)))
    return texts


def _weights(store: RunStore, result: Result) -> Any:
    return no_change if result == DENSE else variant(store, result.method, result.step)


def _sum(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return sum(known) if known else None
