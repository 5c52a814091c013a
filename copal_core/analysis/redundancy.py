"""Information shared by the neurons of one dense block on one domain's text: a map, the closest pairs, their tokens.

Kept in the cache folder, <cache>/neurons/<key>.safetensors and .json, where the key names weights, windows and block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.errors import InvalidValueError
from copal_core.store.run_store import RunStore
from copal_core.system import files
from copal_core.system.paths import cache_root

if TYPE_CHECKING:
    from torch import Tensor

Report = Callable[[str, int, int], None]
TOKENS = 2048  # of the domain's calibration windows, at most
_PAIRS, _POINTS, _FIRING, _AROUND, _SIDE = 12, 600, 8, 6, 256


def find(store: RunStore, domain: int, block: int) -> dict[str, Any] | None:
    """Return what `compute_redundancy` left, without torch; None before it ran.

    'map' (side, side) in nats, 'pairs', 'tokens' and 'neurons'.
    """
    path = _file(store, domain, block)
    if not path.with_suffix(".json").is_file():
        return None
    return {**files.read_json(path.with_suffix(".json")), **files.read_arrays(path)[0]}


def compute_redundancy(store: RunStore, domain: int, block: int, report: Report) -> None:
    """Run the domain's windows through the dense blocks up to `block`, and write what its neurons share.

    domain: from 0. Raises InvalidValueError for a domain or block that the run has not.
    """
    import numpy as np

    from copal_core.checkpoints import locate
    from copal_core.methods.information import correlations, deviations
    from copal_core.statistics.neurons import NormalScoreGram

    checkpoint = locate(store.config.checkpoint, report)
    windows = _windows(store, domain, checkpoint.tokenizer(), report)
    z = _activations(checkpoint, windows, block, report)  # (tokens, d_ff)
    report("Comparing all pairs of neurons", 0, 0)
    statistic = NormalScoreGram()
    gram = statistic.zeros(1, z.shape[1], z.device)
    statistic.update(gram, z, [], None)
    found = correlations(gram, slice(None), deviations(gram))  # (d_ff, d_ff)
    found.fill_diagonal_(0)
    content = {
        "pairs": [
            _pair(one, other, found, z, windows, checkpoint.tokenizer()) for one, other in _closest(found)
        ],
        "tokens": int(z.shape[0]),
        "neurons": int(z.shape[1]),
    }
    path = _file(store, domain, block)
    files.write_arrays(path, {"map": _pooled(found, _order(found.numpy())).astype(np.float32)})
    files.write_json(path.with_suffix(".json"), content, durable=False)


def _windows(store: RunStore, domain: int, tokenizer: Any, report: Report) -> Tensor:
    """(windows, length): the run's own calibration windows, drawn again where a run does not carry them."""
    import torch

    config = store.config
    if not 0 <= domain < len(config.domains):
        raise InvalidValueError(f"domain {domain + 1} is not in the run; it has {len(config.domains)}")
    kept = store.windows(domain)
    if kept is None:
        from copal_core.domains import draw
        from copal_core.domains import find as find_domain

        protocol = config.protocol
        sample = draw(
            find_domain(config.domains[domain]),
            tokenizer,
            protocol.calibration,
            protocol.evaluation,
            protocol.seed,
            report,
        )
        kept = {"calibration": sample.calibration}
    windows = torch.from_numpy(kept["calibration"])
    return windows[: max(1, TOKENS // windows.shape[1])]


def _activations(checkpoint: Any, windows: Tensor, block: int, report: Report) -> Tensor:
    """(tokens, d_ff) float32 of one block's hidden neurons in the dense model."""
    import torch

    from copal_core.checkpoints.backbone import Backbone, linears
    from copal_core.statistics.blockwise import HiddenStates

    backbone = Backbone(checkpoint.folder, "cpu", "float32")
    if not 0 <= block < backbone.depth:
        raise InvalidValueError(f"block {block} is not in the checkpoint; choose 0 to {backbone.depth - 1}")
    states, seen = HiddenStates(backbone, [windows]), []
    for index in range(block + 1):
        report("Reading the text, block by block", index, block + 1)
        with backbone.block(index) as module:
            handle = None
            if index == block:
                handle = linears(module)["down_proj"].register_forward_pre_hook(
                    lambda layer, arguments: seen.append(arguments[0].flatten(0, 1).clone())
                )
            try:
                states.advance(module)
            finally:
                if handle is not None:
                    handle.remove()
    return torch.cat(seen)


def _closest(found: Tensor) -> list[tuple[int, int]]:
    """The pairs of largest |ρ|, each once. found: (d, d) with a zero diagonal."""
    best = found.triu(1).flatten().topk(min(_PAIRS, found.numel() // 4))
    return [divmod(int(place), found.shape[1]) for place in best.indices]


def _pair(one: int, other: int, found: Tensor, z: Tensor, windows: Tensor, tokenizer: Any) -> dict[str, Any]:
    """Describe two neurons: both estimates, a sample of their activations, the tokens on which they fire."""
    import torch

    from copal_core.methods.information import information, neighbour_information

    both = z[:, [one, other]]  # (tokens, 2)
    size = both.square().mean(dim=0).sqrt().clamp_min(1e-12)
    firing = (both / size).abs().prod(dim=1).topk(min(_FIRING, len(both))).indices.tolist()
    shown = torch.linspace(0, len(both) - 1, min(_POINTS, len(both))).long().unique()
    return {
        "one": one,
        "other": other,
        "information": float(information(found[one, other])),
        "neighbours": neighbour_information(*both.double().numpy().T),
        "x": [round(float(value), 5) for value in both[shown, 0]],
        "y": [round(float(value), 5) for value in both[shown, 1]],
        "firing": [
            {
                **_context(place, windows, tokenizer),
                "one": float(both[place, 0]),
                "other": float(both[place, 1]),
            }
            for place in firing
        ],
    }


def _context(place: int, windows: Tensor, tokenizer: Any) -> dict[str, str]:
    """The token at a place of the flattened windows, with a few before and after it."""
    row, column = divmod(place, windows.shape[1])
    tokens = windows[row].tolist()
    parts = (
        tokens[max(0, column - _AROUND) : column],
        [tokens[column]],
        tokens[column + 1 : column + 1 + _AROUND],
    )
    texts = [tokenizer.decode(part) if part else "" for part in parts]
    return dict(zip(("before", "token", "after"), texts, strict=True))


def _order(found: Any) -> Any:
    """The neurons so that those that share most stand together: average-linkage clustering on 1 − |ρ|."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - found
    distance[range(len(found)), range(len(found))] = 0
    return leaves_list(linkage(squareform(distance, checks=False), method="average"))


def _pooled(found: Tensor, order: Any) -> Any:
    """(side, side) mean nats of each tile, in the given order of neurons; a neuron with itself is left out."""
    import torch
    import torch.nn.functional as F

    from copal_core.methods.information import information

    chosen = torch.from_numpy(order).long()
    nats = information(found[chosen][:, chosen])
    others = 1 - torch.eye(len(nats), dtype=nats.dtype)
    side = min(_SIDE, len(nats))
    total, share = (F.adaptive_avg_pool2d(part[None], (side, side))[0] for part in (nats * others, others))
    return (total / share.clamp_min(1e-12)).numpy()


def _file(store: RunStore, domain: int, block: int) -> Path:
    info, protocol = store.info, store.config.protocol
    described = info.get("domains", [])
    text = (
        described[domain].get("content_hash")
        if domain < len(described)
        else store.config.domains[domain:][:1]
    )
    weights = info.get("checkpoint", {}).get("fingerprint", store.config.checkpoint)
    identity = json.dumps([weights, text, str(protocol.calibration), protocol.seed, TOKENS, block])
    return cache_root() / "neurons" / f"{hashlib.sha256(identity.encode()).hexdigest()[:20]}.safetensors"
