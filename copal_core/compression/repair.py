"""Blocks that count as finished though a file of theirs is gone or cut short: forgotten, to be computed again.

What is computed again has the same bytes, so that later steps and perplexities, which rest on it, stay.
"""

from __future__ import annotations

from collections.abc import Iterator

from copal_core.compression.restore import artifact_of
from copal_core.config import Method
from copal_core.errors import RunError
from copal_core.methods.build import Compressor
from copal_core.methods.strategy import Strategy
from copal_core.store.run_store import RunStore
from copal_core.system import files


def forget_damaged(
    store: RunStore, method: Method, step: int, compressor: Compressor, strategy: Strategy
) -> tuple[int, str] | None:
    """Forget the blocks of one step from the first damaged one on; all of them where the method trains.

    Trained factors stand in place of those that the blocks after were calibrated with. Returns the damaged block and
    what is wrong with it, None when all are whole. Raises RunError when it cannot be computed again: the memory of the
    step before, which its strategy needs, was dropped.
    """
    found = next(_damaged(store, str(method), step, compressor), None)
    if found is None:
        return None
    block, problem = found
    if step > 1 and strategy.remembers and store.info.get("memory_dropped"):
        raise RunError(
            f"{problem}, and the memory it was computed from was dropped when the run was done; start a new run of the "
            "same configuration"
        )
    if compressor.training_tokens:
        block = 0
    store.records.forget_blocks(str(method), step, block)
    return block, problem


def _damaged(store: RunStore, method: str, step: int, compressor: Compressor) -> Iterator[tuple[int, str]]:
    files_of = artifact_of(method).files
    for block in range(store.finished_blocks(method, step)):
        for kind in files_of(compressor, store, (method, step, block)):
            path = store.block_path(kind, method, step, block)
            where = f"{kind}/{path.parent.parent.name}/{path.parent.name}/{path.name} of run '{store.id}'"
            if not path.is_file():
                yield block, f"{where} is missing"
                continue
            try:
                files.read_arrays(path, names=[])  # the header, which says how long the file must be
            except RunError:
                yield block, f"{where} is cut short or damaged"
