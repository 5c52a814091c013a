"""What the Diagnose page has computed for it, in the worker's process; and the files through which it asks.

A request is JSON in <cache>/requests, named by its content: the same question is the same file and the same task.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

from copal_core.analysis.diagnosis.evidence import Place
from copal_core.analysis.diagnosis.kept import DENSE, Result
from copal_core.errors import InvalidValueError
from copal_core.store.runs import Runs
from copal_core.system import files
from copal_core.system.paths import cache_root

Report = Callable[[str, int, int], None]
_KEPT = 60  # requests; older ones are deleted, with the texts in them


def ask(content: dict[str, Any]) -> str:
    """Write a request; returns its name. Raises RunError when the cache folder cannot be written."""
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache_root() / "requests"
    path = folder / f"{name}.json"
    try:
        os.utime(path)  # asked again: not one of the old ones
    except OSError:
        files.write_json(path, content, durable=False)
        files.keep_newest(folder, "*.json", _KEPT)
    return name


def answer(question: str, request: str, report: Report) -> dict[str, Any]:
    """Compute what a request asks for."""
    if question not in _QUESTIONS or not re.fullmatch(r"[0-9a-f]{20}", request):
        raise InvalidValueError(f"'{question[:40]}' is not a question; known: {', '.join(_QUESTIONS)}")
    content = files.read_json(cache_root() / "requests" / f"{request}.json")
    return _QUESTIONS[question](content, report)


def _losses(content: dict[str, Any], report: Report) -> dict[str, Any]:
    """Loss of every piece of the text in every model."""
    report("opening the checkpoint", 0, 0)
    import torch

    from copal_core.analysis.diagnosis.comparing import compared_losses, described, same_checkpoint

    models, checkpoint, protocol = _opened(content)
    same_checkpoint(models)
    tokenizer = checkpoint.tokenizer()
    tokens, cut = _tokens(content, checkpoint, tokenizer)
    backbone = checkpoint.open(protocol.device, protocol.dtype)
    losses = compared_losses(backbone, torch.tensor(tokens), models, report)
    predicted = sum(loss is not None for loss in losses[0])
    return {
        "pieces": described(tokens, losses, tokenizer),
        "mean": [sum(loss for loss in row if loss is not None) / predicted for row in losses],
        "tokens": len(tokens),
        "predicted": predicted,
        "cut": cut,
        "dtype": str(backbone.dtype).removeprefix("torch."),
    }


def _continue(content: dict[str, Any], report: Report) -> dict[str, Any]:
    """What every model writes after the beginning of the text."""
    report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.comparing import continuations, same_checkpoint
    from copal_core.analysis.diagnosis.pieces import pieces_of

    models, checkpoint, protocol = _opened(content)
    same_checkpoint(models)
    tokenizer = checkpoint.tokenizer()
    tokens, _ = _tokens(content, checkpoint, tokenizer)
    prompt = tokens[: content["prompt"]]
    settings = (content["count"], content["temperature"], content["seed"])
    texts = continuations(checkpoint, protocol, prompt, models, *settings, report)
    return {"prompt": "".join(one.text for one in pieces_of(prompt, tokenizer)), "texts": texts}


def _layer(content: dict[str, Any], report: Report) -> dict[str, Any]:
    """Everything about one layer, written into the cache folder."""
    report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.layers import gather_layer
    from copal_core.checkpoints import locate

    store = Runs().open(content["run"])
    place = Place(content["block"], content["projection"])
    gather_layer(store, locate(store.config.checkpoint), place, content["row"], report)
    return {}


def _decision(content: dict[str, Any], report: Report) -> dict[str, Any]:
    """How one step decided about one layer, written into the cache folder."""
    report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.decisions import gather_decision
    from copal_core.checkpoints import locate

    store = Runs().open(content["run"])
    place = Place(content["block"], content["projection"])
    result = Result(content["method"], content["step"])
    gather_decision(store, locate(store.config.checkpoint), place, result, content["row"], report)
    return {}


def _opened(content: dict[str, Any]) -> tuple[list[Any], Any, Any]:
    """The models (the dense one first), their checkpoint, and the first run's protocol."""
    from copal_core.checkpoints import locate

    stores = {run: Runs().open(run) for run, _, _ in content["models"]}
    first = stores[content["models"][0][0]]
    models = [(first, DENSE)]
    models += [(stores[run], Result(method, step)) for run, method, step in content["models"]]
    return models, locate(first.config.checkpoint), first.config.protocol


def _tokens(content: dict[str, Any], checkpoint: Any, tokenizer: Any) -> tuple[list[int], str]:
    """The text's tokens, and in words what was left out of it."""
    from copal_core.analysis.diagnosis.kept import domain_windows
    from copal_core.analysis.diagnosis.pieces import MOST_TOKENS, bounded

    if "typed" in content:
        found = bounded(content["typed"], tokenizer, content["characters"])
        return list(found.tokens), found.cut
    run, domain, window = content["window"]
    ids = domain_windows(Runs().open(run), domain, checkpoint)["evaluation"][window]
    cut = ""
    if len(ids) > MOST_TOKENS:
        cut = f"The window has {len(ids):,} tokens; its first {MOST_TOKENS:,} are compared."
    return [int(token) for token in ids[:MOST_TOKENS]], cut


_QUESTIONS: dict[str, Callable[[dict[str, Any], Report], dict[str, Any]]] = {
    "losses": _losses,
    "continue": _continue,
    "layer": _layer,
    "decision": _decision,
}
