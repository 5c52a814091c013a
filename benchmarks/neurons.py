"""Seconds and peak memory of choosing neurons by mutual information in one wide block, on random activations.

The default width is that of LLaMA-7B: all 60 million pairs of 11,008 neurons, in blocks, within 4 GB.

    python -m benchmarks.neurons --neurons 11008 --tokens 4096
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from copal_core.methods.neuron_selector import removed_weights
from copal_core.methods.neurons.mutual_information import MutualInformation
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics

_LIMIT = 4e9
_BATCH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, default=11008)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--share", type=float, default=0.1)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    selector = MutualInformation(share=options.share)
    before = _peak()
    print(f"{options.neurons:,} neurons, {options.tokens:,} tokens, {options.share:.0%} removed")

    started = time.perf_counter()
    gathered = GroupStatistics(options.tokens)
    for one in selector.statistics():
        gathered.totals[one.name] = one.zeros(options.hidden, options.neurons, torch.device("cpu"))
    for start in range(0, options.tokens, _BATCH):
        size = (min(_BATCH, options.tokens - start), options.neurons)
        z = torch.randn(size, generator=generator) * torch.randn(size, generator=generator)  # (tokens, d_ff)
        for one in selector.statistics():
            one.update(gathered.totals[one.name], z, [], None)
    print(f"{'gather':10}{time.perf_counter() - started:8.1f} s")

    shapes = {"gate_proj": (options.neurons, options.hidden), "up_proj": (options.neurons, options.hidden)}
    weights = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    weights["down_proj"] = torch.randn(options.hidden, options.neurons, generator=generator).bfloat16()
    started = time.perf_counter()
    found = selector.select(weights, BlockStatistics({"mlp_output": gathered}), generator)
    print(f"{'select':10}{time.perf_counter() - started:8.1f} s, {len(found.removed):,} neurons")
    started, peak = time.perf_counter(), _peak()
    removed_weights(weights, found)
    print(f"{'remove':10}{time.perf_counter() - started:8.1f} s")
    print(
        f"{'peak':10}{peak / 1e9:8.2f} GB until selected, {_peak() / 1e9:.2f} GB with the block's weights in float32"
    )
    print(f"{'':10}{before / 1e9:8.2f} GB of them Python and torch; limit {_LIMIT / 1e9:.0f} GB")
    if _peak() > _LIMIT:
        raise SystemExit(f"{_peak() / 1e9:.2f} GB exceed {_LIMIT / 1e9:.0f} GB")


def _peak() -> int:
    """Highest resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
