"""A random checkpoint of a large model's shape: written shard by shard, pruned block by block, its memory watched.

Every part of `run` is measured by sampling /proc while `python -m copal_core run` computes: the peak of the
resident memory, and of it the anonymous part (what no file backs and the system cannot take back).

    python -m benchmarks.big_model write --shape 7b --out /var/tmp/7b
    python -m benchmarks.big_model run --checkpoint /var/tmp/7b
    python -m benchmarks.big_model one-block --shape 65b --scratch /var/tmp
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from transformers import LlamaConfig

from copal_core.checkpoints import locate, residence
from copal_core.checkpoints.writer import ShardWriter

SHAPES: dict[str, dict[str, int]] = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000},
    "llama3-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256,
        "num_key_value_heads": 8,
    },
    "65b": {"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "vocab_size": 32000},
    "small": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "vocab_size": 32000},
}  # fmt: skip
_HEAD_SIZE = 128
_POOL = 2**24  # random numbers that are drawn; larger tensors repeat them at other places


def write(shape: str, folder: Path, blocks: int = 0) -> None:
    """A checkpoint of random bfloat16 weights with the tokenizer of `tiny`; blocks: 0 for all of the shape's."""
    sizes = dict(SHAPES[shape])
    sizes["num_hidden_layers"] = blocks or sizes["num_hidden_layers"]
    heads = sizes["hidden_size"] // min(_HEAD_SIZE, sizes["hidden_size"] // 4)
    config = LlamaConfig(
        **{"num_key_value_heads": heads, **sizes}, num_attention_heads=heads, max_position_embeddings=2048,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, dtype="bfloat16",
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    folder.mkdir(parents=True)
    draw = _Draw()
    writer = ShardWriter(folder)
    writer.add("model.embed_tokens.weight", draw(config.vocab_size, config.hidden_size))
    for index in range(config.num_hidden_layers):
        _write_block(writer, config, f"model.layers.{index}.", draw)
        print(f"\rblock {index + 1} of {config.num_hidden_layers}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    writer.add("model.norm.weight", torch.ones(config.hidden_size, dtype=torch.bfloat16))
    writer.add("lm_head.weight", draw(config.vocab_size, config.hidden_size))
    writer.finish()
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(locate("tiny").folder / name, folder)


def _write_block(writer: ShardWriter, config: LlamaConfig, prefix: str, draw: _Draw) -> None:
    hidden, ffn = config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * hidden // config.num_attention_heads
    for name in ("input_layernorm", "post_attention_layernorm"):
        writer.add(f"{prefix}{name}.weight", torch.ones(hidden, dtype=torch.bfloat16))
    for name, rows in (("q_proj", hidden), ("k_proj", keys), ("v_proj", keys), ("o_proj", hidden)):
        writer.add(f"{prefix}self_attn.{name}.weight", draw(rows, hidden))
    for name, rows, columns in (
        ("gate_proj", ffn, hidden),
        ("up_proj", ffn, hidden),
        ("down_proj", hidden, ffn),
    ):
        writer.add(f"{prefix}mlp.{name}.weight", draw(rows, columns))


class _Draw:
    """Normal numbers of standard deviation 0.02 in bfloat16, quickly."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._pool = (torch.randn(_POOL, generator=self._generator) * 0.02).bfloat16()

    def __call__(self, rows: int, columns: int) -> torch.Tensor:
        count = rows * columns
        start = int(torch.randint(_POOL, (1,), generator=self._generator))
        repeats = -(-(count + start) // _POOL)
        return self._pool.repeat(repeats)[start : start + count].view(rows, columns)


class Watch:
    """Peaks of a process's memory, sampled every 20 ms."""

    def __init__(self, pid: int) -> None:
        self.resident = self.anonymous = 0
        self._status = Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while True:
            try:
                lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
            except (OSError, ValueError):
                return
            if "VmRSS" not in lines:
                return
            self.resident = max(self.resident, _bytes(lines["VmRSS"]))
            self.anonymous = max(self.anonymous, _bytes(lines["RssAnon"]))
            time.sleep(0.02)


def _bytes(entry: str) -> int:
    return int(entry.split()[0]) * 1024


def run(checkpoint: Path, options: argparse.Namespace) -> None:
    """One domain, one method, an evaluation of the dense and of the pruned model; prints seconds and peaks."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as runs:
        command = [sys.executable, "-m", "copal_core", "run", "--checkpoint", str(checkpoint)]
        command += ["--domain", options.domain, "--method", options.method, "--structure", options.structure]
        command += ["--calibration", options.calibration, "--evaluation", options.evaluation]
        command += ["--runs", runs, "--json"]
        started = time.perf_counter()
        limit = {} if not options.memory else {residence.LIMIT: str(options.memory)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **limit})
        watch = Watch(process.pid)
        output, _ = process.communicate()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"the run ended with status {process.returncode}")
        written = sum(path.stat().st_size for path in Path(runs).rglob("*") if path.is_file())
        result = json.loads(output)
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    print(f"checkpoint          {size / 1e9:8.2f} GB")
    print(f"peak resident       {watch.resident / 1e9:8.2f} GB")
    print(f"  of it anonymous   {watch.anonymous / 1e9:8.2f} GB")
    print(f"written by the run  {written / 1e9:8.2f} GB")
    print(f"seconds             {seconds:8.0f}   {result['methods'][0]['seconds']}")
    print(f"perplexity          dense {result['dense']}, after {result['methods'][0]['perplexity']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="one-block", choices=["write", "run", "one-block"])
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--blocks", type=int, default=0, help="0: as many as the shape has")
    parser.add_argument("--out", type=Path, help="where to write")
    parser.add_argument("--checkpoint", type=Path, help="what to run")
    parser.add_argument("--scratch", type=Path, help="where the run's folder is kept while it computes")
    parser.add_argument("--memory", type=int, default=0, help="plan as if no more bytes than these were free")
    parser.add_argument("--domain", default="python-code")
    parser.add_argument("--method", default="copal:accumulate")
    parser.add_argument("--structure", default="unstructured")
    parser.add_argument("--calibration", default="2x128")
    parser.add_argument("--evaluation", default="2x128")
    options = parser.parse_args()
    if options.what == "write":
        write(options.shape, options.out, options.blocks)
    elif options.what == "run":
        run(options.checkpoint, options)
    else:  # written, run and removed
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            write(options.shape, Path(folder) / options.shape, options.blocks or 1)
            options.memory = (
                options.memory or 1
            )  # a block of a model that does not fit visits, and leaves again
            run(Path(folder) / options.shape, options)


if __name__ == "__main__":
    main()
