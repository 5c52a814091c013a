"""The model card of `tiny`: its perplexities, measured, and its training, as recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from copal_core.config import Protocol
from copal_core.domains import builtins, draw, find

PROTOCOL = Protocol()


def perplexities(folder: Path, prune: float = 0.0) -> dict[str, float]:
    """exp(mean negative log-likelihood in nats per predicted token) on each built-in domain.

    prune: the share of each block's linear weights removed first, the smallest of each row.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        if prune and name.endswith("_proj.weight"):
            removed = weight.abs().argsort(dim=1)[:, : int(prune * weight.shape[1])]  # (out, removed)
            weight.data.scatter_(1, removed, 0.0)
    result = {}
    for info in builtins():
        sample = draw(find(info.name), tokenizer, PROTOCOL.calibration, PROTOCOL.evaluation, PROTOCOL.seed)
        windows = torch.from_numpy(sample.evaluation)  # (count, length)
        with torch.inference_mode():
            result[info.name] = math.exp(model(input_ids=windows, labels=windows).loss.item())
    return result


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# tiny

A LLaMA of {parameters:,} parameters for lessons and tests: small enough that a class sees a whole pruning run
live, trained enough that pruning hurts it. It writes text of the right look and little sense; no other use is meant.

| | |
|---|---|
| architecture | `LlamaForCausalLM`: 6 blocks, hidden 256, FFN 640, 8 heads on 4 key-value heads, context 1,024 |
| embeddings | 4,096 x 256, tied to the output layer |
| tokenizer | byte-level BPE of 4,096 tokens, trained on the same documents |
| training text | the training share of the built-in domains; {text} tokens |
| training | {steps:,} steps of 2 windows of 256 tokens ({tokens:,} tokens), AdamW, cosine schedule, seed 0 |
| mixture | {mixture} |
| time | {minutes:.0f} minutes on two shared CPU cores |
| stored | bfloat16 safetensors |

The texts are Python's standard library sources and language reference, Shakespeare's plays, and licence texts of
installed packages. A stable hash of a document's name parts them: what trains `tiny` is never sampled for calibration
or evaluation. With other versions of Python or of the packages the texts differ a little, and so do the figures.

## Perplexity

{stamp}. "50 % removed" takes the smallest half of each row's weights, without calibration.

| domain | dense | 50 % removed by magnitude |
|---|---|---|
{rows}

Make it again with `python -m assets.train_tiny`.
"""


def write_card(folder: Path) -> None:
    """Measure, and write README.md beside the weights."""
    figures = json.loads((folder / "training.json").read_text())
    dense, pruned = perplexities(folder), perplexities(folder, prune=0.5)
    card = CARD.format(
        **{key: figures[key] for key in ("parameters", "steps", "tokens")},
        text=f"{sum(figures['training_tokens'].values()):,}",
        mixture=", ".join(
            f"{name} {share:.1%} ({figures['passes'][name]} passes)"
            for name, share in figures["mixture"].items()
        ),
        minutes=figures["seconds"] / 60,
        stamp=f"Calibration {PROTOCOL.calibration}, evaluation {PROTOCOL.evaluation}, seed {PROTOCOL.seed}, float32",
        rows="\n".join(f"| {name} | {value:.1f} | {pruned[name]:.1f} |" for name, value in dense.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
