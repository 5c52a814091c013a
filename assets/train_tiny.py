"""Train `tiny`: a small LLaMA for lessons and tests, on the built-in domains' training documents.

    python -m assets.train_tiny --out assets/tiny

Trains a byte-level BPE of 4,096 tokens and a model of 5.2 M parameters from random weights; needs about
1 GB of memory. Only documents that no sample is ever drawn from are read. When done, it measures the
perplexity on each built-in domain and writes the model card; `--card` does only that.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from assets.tiny_card import write_card
from copal_core.domains import BUILTINS

END = "<|endoftext|>"
VOCABULARY = 4096
WINDOW = 256
BATCH = 2  # few windows and many steps: with so few tokens, steps are what is short
SEED = 0
LEARNING_RATE = 3e-3
WARM_UP = 100
# Shares of the training windows: the two small domains are read more often than their size alone would give.
MIXTURE = {"python-code": 0.35, "shakespeare": 0.30, "python-manual": 0.175, "licences": 0.175}


def train_tokenizer(texts: dict[str, list[str]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE, trained on an equal number of characters of each domain at most."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_balanced(texts, characters=1_000_000), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=1024
    )


def _balanced(texts: dict[str, list[str]], characters: int) -> Iterator[str]:
    """Up to `characters` of each domain, in a shuffled order of its documents."""
    generator = np.random.default_rng(SEED)
    for name in sorted(texts):
        left = characters
        for index in generator.permutation(len(texts[name])):
            if left <= 0:
                break
            yield texts[name][index][:left]
            left -= len(texts[name][index])


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """All documents one after another, each followed by the end token: (tokens,) int64."""
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return np.concatenate([np.asarray([*ids, tokenizer.eos_token_id], dtype=np.int64) for ids in encoded])


class Windows:
    """Endless shuffled windows of one domain; each pass over the text starts at another offset."""

    def __init__(self, stream: np.ndarray, generator: np.random.Generator) -> None:
        self.stream = stream
        self.passes = 0
        self._generator = generator
        self._starts: list[int] = []

    def next(self) -> np.ndarray:
        """One window: (WINDOW,) token ids."""
        if not self._starts:
            offset = int(self._generator.integers(WINDOW))
            starts = np.arange(offset, len(self.stream) - WINDOW + 1, WINDOW)
            self._starts = self._generator.permutation(starts).tolist()
            self.passes += 1
        start = self._starts.pop()
        return self.stream[start : start + WINDOW]


def build_model(end: int) -> LlamaForCausalLM:
    """The untrained model: grouped-query attention (8 heads on 4), tied embeddings, 5.2 M parameters."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.04,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def train(
    model: LlamaForCausalLM, streams: dict[str, np.ndarray], steps: int, save_every: int, out: Path
) -> dict[str, float]:
    """AdamW with a cosine schedule. Returns the passes over each domain's text."""
    generator = np.random.default_rng(SEED)
    sources = {name: Windows(stream, generator) for name, stream in streams.items()}
    names, shares = list(sources), np.array([MIXTURE[name] for name in sources])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARM_UP, steps // 10), steps)
    losses: list[float] = []
    model.train()
    for step in range(1, steps + 1):
        chosen = generator.choice(len(names), size=BATCH, p=shares / shares.sum())
        batch = torch.from_numpy(
            np.stack([sources[names[index]].next() for index in chosen])
        )  # (BATCH, WINDOW)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}/{steps}  mean loss {np.mean(losses[-50:]):.3f}", flush=True)
        if save_every and step % save_every == 0 and step < steps:
            save(model, out)
    return {name: source.passes for name, source in sources.items()}


def save(model: LlamaForCausalLM, out: Path) -> None:
    """The weights in bfloat16, as transformers reads them."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)


def make(steps: int, save_every: int, out: Path) -> None:
    """Train from nothing and save; the figures of the training go to training.json beside the weights."""
    started = time.monotonic()
    texts = {
        name: [document.text for document in BUILTINS.get(name)().training_documents()] for name in MIXTURE
    }
    tokenizer = train_tokenizer(texts)
    streams = {name: token_stream(tokenizer, documents) for name, documents in texts.items()}
    print({name: len(stream) for name, stream in streams.items()}, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model = build_model(tokenizer.eos_token_id)
    passes = train(model, streams, steps, save_every, out)
    save(model, out)
    figures = {
        "steps": steps,
        "tokens": steps * BATCH * WINDOW,
        "seconds": round(time.monotonic() - started),
        "parameters": sum(value.numel() for value in model.parameters()),
        "training_tokens": {name: len(stream) for name, stream in streams.items()},
        "mixture": MIXTURE,
        "passes": passes,
    }
    (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    """Train, measure, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3600, help="optimiser steps of 2 x 256 tokens")
    parser.add_argument("--save-every", type=int, default=0, help="also save every so many steps")
    parser.add_argument("--out", type=Path, default=Path("assets/tiny"))
    parser.add_argument(
        "--card", action="store_true", help="only measure the perplexities and write the card"
    )
    arguments = parser.parse_args()
    if not arguments.card:
        make(arguments.steps, arguments.save_every, arguments.out)
    write_card(arguments.out)


if __name__ == "__main__":
    main()
