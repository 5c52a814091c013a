"""Results that a run kept for a closer look: which results can be rebuilt, and the windows of its domains. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from copal_core.errors import RunError
from copal_core.store.run_store import RunStore

if TYPE_CHECKING:
    from copal_core.checkpoints import Checkpoint

_NOT_WEIGHTS = ("maps", "memory")  # kinds of files that say nothing of the weights a step left


@dataclass(frozen=True, order=True)
class Result:
    """The model that a method left after a step; method 'dense', step 0 is the checkpoint itself."""

    method: str
    step: int

    def __str__(self) -> str:
        return "dense model" if self.method == "dense" else f"{self.method} after step {self.step}"


DENSE = Result("dense", 0)


def kept_results(store: RunStore) -> list[Result]:
    """Every finished result whose weights can be put together again, method by method.

    Empty for a run that ships without its masks.
    """
    blocks = store.info.get("checkpoint", {}).get("blocks")
    found = []
    for method in map(str, store.config.methods):
        for step in range(1, len(store.config.domains) + 1):
            finished = store.finished_blocks(method, step)
            if finished and finished >= (blocks or finished) and _has_weights(store, method, step):
                found.append(Result(method, step))
    return found


def require_kept(store: RunStore, result: Result) -> None:
    """Raises RunError, naming what is there, when a result cannot be rebuilt."""
    if result == DENSE or result in (known := kept_results(store)):
        return
    there = ", ".join(map(str, known)) or "none"
    raise RunError(
        f"run '{store.id}' keeps no weights of {result}; kept: {there}; choose one of them, or run it again"
    )


def _has_weights(store: RunStore, method: str, step: int) -> bool:
    relative = store.block_path("masks", method, step, 0).relative_to(store.folder / "masks")
    return any(
        (kind / relative).is_file()
        for kind in store.folder.iterdir()
        if kind.is_dir() and kind.name not in _NOT_WEIGHTS
    )


def domain_windows(store: RunStore, index: int, checkpoint: Checkpoint) -> dict[str, NDArray[np.int64]]:
    """'calibration' and 'evaluation' (count, length) of domain `index` (from 0).

    Kept with the run, or drawn again where it ships without them. Raises RunError when what is drawn is not
    what the run saw, DomainError when the text cannot be read.
    """
    kept = store.windows(index)
    if kept is not None:
        return kept
    from copal_core.domains import draw, find

    protocol, described = store.config.protocol, store.info.get("domains", [])
    spec = store.config.domains[index]
    sample = draw(
        find(spec), checkpoint.tokenizer(), protocol.calibration, protocol.evaluation, protocol.seed
    )
    wanted = described[index].get("content_hash") if index < len(described) else None
    if wanted != sample.content_hash:
        raise RunError(
            f"the text of domain '{spec}' is not what run '{store.id}' saw and it kept no windows; run it again"
        )
    return {"calibration": sample.calibration, "evaluation": sample.evaluation}
