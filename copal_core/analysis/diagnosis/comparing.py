"""One text through several models: the loss of every token, and each model's continuation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from copal_core.analysis.diagnosis.kept import DENSE, Result, domain_windows, require_kept
from copal_core.analysis.diagnosis.pieces import MOST_TOKENS, bounded, pieces_of
from copal_core.checkpoints import Checkpoint, locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.compression.restore import variant
from copal_core.config import Protocol
from copal_core.errors import InvalidValueError, RunError
from copal_core.experiment.evaluation import no_change, token_losses
from copal_core.experiment.generation import generate, whole_model
from copal_core.store.run_store import RunStore

Report = Callable[[str, int, int], None]
Model = tuple[RunStore, Result]  # a run, and one of its results


@dataclass(frozen=True)
class Typed:
    """A text that somebody gave. characters: how long it was before it was shortened, None where it was not."""

    text: str
    characters: int | None = None

    def tokens(self, checkpoint: Checkpoint, tokenizer: Any) -> tuple[list[int], str]:
        """Return its first tokens, and in words what was left out."""
        text = bounded(self.text, tokenizer, self.characters)
        return list(text.tokens), text.cut


@dataclass(frozen=True)
class Window:
    """An evaluation window of a run. domain, number: both from 0."""

    store: RunStore
    domain: int
    number: int

    def tokens(self, checkpoint: Checkpoint, tokenizer: Any) -> tuple[list[int], str]:
        """Return its first tokens, and in words what was left out."""
        ids = domain_windows(self.store, self.domain, checkpoint)["evaluation"][self.number]
        cut = ""
        if len(ids) > MOST_TOKENS:
            cut = f"The window has {len(ids):,} tokens; its first {MOST_TOKENS:,} are compared."
        return [int(token) for token in ids[:MOST_TOKENS]], cut


def compare_losses(results: Sequence[Model], text: Typed | Window, report: Report) -> dict[str, Any]:
    """Read one text with the dense model and with results of runs.

    Args:
        results: of runs of one checkpoint; the first run's protocol decides device and dtype.
        text: to be read.
        report: told how far it is.

    Returns:
        models: names, the dense one first. pieces: [text, loss in nats in each model] of every piece. mean: nats a
        predicted token in each model. tokens, predicted: counts. cut: what was left out of the text, in words. dtype.

    Raises:
        RunError: for results of different checkpoints, or results that the runs did not keep.
        InvalidValueError: for a text with nothing to predict.
    """
    models, checkpoint, protocol = _opened(results)
    tokenizer = checkpoint.tokenizer()
    tokens, cut = text.tokens(checkpoint, tokenizer)
    backbone = checkpoint.open(protocol.device, protocol.dtype)
    losses = compared_losses(backbone, torch.tensor(tokens), models, report)
    predicted = sum(loss is not None for loss in losses[0])
    return {
        "models": [str(result) for _, result in models],
        "pieces": described(tokens, losses, tokenizer),
        "mean": [sum(loss for loss in row if loss is not None) / predicted for row in losses],
        "tokens": len(tokens),
        "predicted": predicted,
        "cut": cut,
        "dtype": str(backbone.dtype).removeprefix("torch."),
    }


def continue_text(
    results: Sequence[Model],
    text: Typed | Window,
    prompt: int,
    count: int,
    temperature: float,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Continue the first tokens of a text with the dense model and with results of runs.

    Args:
        results: as for `compare_losses`.
        text: whose beginning is the prompt.
        prompt: its length in tokens.
        count: of new tokens.
        temperature: 0 for the likeliest token always.
        seed: of what is drawn, the same for every model.
        report: told how far it is.

    Returns:
        prompt: as text. texts: what each model writes, the dense one first.

    Raises:
        RunError: as for `compare_losses`, and for a model that does not fit into memory.
        InvalidValueError: for more tokens than the checkpoint's context.
    """
    models, checkpoint, protocol = _opened(results)
    tokenizer = checkpoint.tokenizer()
    beginning = text.tokens(checkpoint, tokenizer)[0][:prompt]
    texts = continuations(checkpoint, protocol, beginning, models, count, temperature, seed, report)
    return {"prompt": "".join(piece.text for piece in pieces_of(beginning, tokenizer)), "texts": texts}


def _opened(results: Sequence[Model]) -> tuple[list[Model], Checkpoint, Protocol]:
    """Return the models (the dense one first), their checkpoint, and the first run's protocol."""
    store = results[0][0]
    models = [(store, DENSE), *results]
    same_checkpoint(models)
    return models, locate(store.config.checkpoint), store.config.protocol


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
    """Return what each model writes after the prompt; one whole model is in memory at a time.

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
