"""The amounts that a run removes, as asked for and as recorded, in the words that stand beside its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.config import Method, RunConfig, Structure
from copal_core.methods.amounts import has_own_amount
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.stored_size import dense_bytes

if TYPE_CHECKING:
    import pandas as pd

    from copal_core.store.run_store import RunStore

_SHARE = 0.1  # of every selector, unless its options say otherwise


def neuron_share(method: Method) -> float | None:
    """The share of neurons that a method removes; None for a method that removes none."""
    return float(method.options.get("share", _SHARE)) if method.name in NEURONS.names() else None


def own_amount(method: Method) -> tuple[str, float] | None:
    """What a method's own option removes, and its share: ('neurons', 0.1), ('bytes', 0.3); None where the run's
    structure decides."""
    share = neuron_share(method)
    if share is not None:
        return "neurons", share
    return ("bytes", 1 - float(method.options["keep"])) if has_own_amount(method) else None


def removed(config: RunConfig) -> str:
    """'50 % per row', '10 %, 30 % of the neurons', '20 % of the bytes', or several where the methods are unlike."""
    amounts = [own_amount(method) for method in config.methods]
    parts = [of_weights(config.structure)] if None in amounts else []
    for unit in ("neurons", "bytes"):
        shares = sorted({amount[1] for amount in amounts if amount is not None and amount[0] == unit})
        parts += [_of(unit, shares)] if shares else []
    return "; ".join(parts)


def removed_by(config: RunConfig, method: str) -> str:
    """The amount that one method of the run removes; factors have no mask, and keep as many bytes as the structure."""
    parsed = Method.parse(method)
    amount = own_amount(parsed)
    if amount is not None:
        return _of(amount[0], [amount[1]])
    words = of_weights(config.structure)
    return f"bytes as {words}" if parsed.name in LOWRANK.names() else words


def done_by(store: RunStore, method: str, step: int) -> str:
    """What `method` had done after `step`, as the run recorded it.

    'Removed 50 % per row', 'Removed 24 of 96 hidden neurons of the feed-forward layers', or 'Kept 46.2 % of the
    bytes of the linear layers: 10 as factors of rank 3 to 9, 4 as masks that remove 43 % of their weights'; with what
    was trained, where anything was.
    """
    neurons, layers = (
        table[(table["method"] == method) & (table["step"] == step)]
        for table in (store.records.table("neurons"), store.factors())
    )
    if len(neurons):
        gone, total = neurons["removed"].sum(), neurons["neurons"].sum()
        return f"Removed {gone:,} of {total:,} hidden neurons of the feed-forward layers"
    if len(layers):
        dense = sum(map(dense_bytes, layers["rows"], layers["columns"]))
        share = f"{100 * layers['bytes'].sum() / dense:.3g} %"
        trained = training_of(store, method, step)
        words = f"; {trained_words(*trained)}" if trained[0] else ""
        return f"Kept {share} of the bytes of the linear layers: {_kinds(layers)}{words}"
    return f"Removed {of_weights(store.config.structure)}"


def training_of(store: RunStore, method: str, step: int) -> tuple[int, int]:
    """Tokens that `method` had trained on after `step`, with repeats and without; 0 and 0 for no training."""
    query = "SELECT tokens, distinct_tokens FROM training WHERE method = ? AND step = ?"
    rows = store.records.rows(query, (method, step))
    return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)


def trained_words(tokens: int, distinct: int) -> str:
    """'training-free', or such as 'trained on 8,192 distinct tokens, 4.0 passes'."""
    if not tokens:
        return "training-free"
    return f"trained on {distinct:,} distinct tokens, {tokens / distinct:.1f} passes"


def _kinds(layers: pd.DataFrame) -> str:
    """How many of a low-rank method's layers became factors or masks, or stayed dense."""
    rank, mask, dense = (layers[layers["kind"] == kind] for kind in ("rank", "mask", "dense"))
    parts = []
    if len(rank):
        parts.append(f"{len(rank)} as factors of rank {rank['rank'].min()} to {rank['rank'].max()}")
    if len(mask):
        gone = 1 - mask["parameters"].sum() / (mask["rows"] * mask["columns"]).sum()
        parts.append(f"{len(mask)} as masks that remove {100 * gone:.3g} % of their weights")
    if len(dense):
        parts.append(f"{len(dense)} as they were")
    return ", ".join(parts)


def of_weights(structure: Structure) -> str:
    """'50 % per row', or '75 % (1:4)': N:M names what is kept."""
    return f"{100 * structure.removed:.4g} % ({structure})" if structure.kind == "n:m" else str(structure)


def _of(unit: str, shares: list[float]) -> str:
    return f"{', '.join(f'{100 * share:.3g} %' for share in shares)} of the {unit}"
