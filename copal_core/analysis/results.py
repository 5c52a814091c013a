"""From a run's records to the one object that describes its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from copal_core.analysis import metrics
from copal_core.config import Method
from copal_core.methods.describe import kept_share, of_weights, trained_words
from copal_core.methods.stored_size import dense_bytes

if TYPE_CHECKING:
    import pandas as pd

    from copal_core.store.run_store import RunStore


def perplexity_matrix(table: pd.DataFrame, method: str, domains: list[str]) -> metrics.Matrix:
    """(T + 1, T) perplexity of `method`; row 0 is the dense model; NaN where not computed yet."""
    R = np.full((len(domains) + 1, len(domains)), np.nan)
    column = {name: index for index, name in enumerate(domains)}
    for row in table.itertuples():
        if row.domain in column and (row.method == method or (row.method == "dense" and row.step == 0)):
            R[row.step, column[row.domain]] = row.perplexity
    return R


def stasis_by_step(layers: pd.DataFrame, method: str) -> pd.DataFrame:
    """step, stasis, mask_change, sparsity of the whole model, one row a step that has another before it."""
    import pandas as pd

    rows = []
    chosen = layers[(layers["method"] == method) & layers["stay_pruned"].notna()]
    for step, group in chosen.groupby("step"):
        total = group[["stay_pruned", "pruned", "revived", "newly_pruned", "weights"]].sum()
        rows.append(
            {
                "step": int(step),
                "stasis": metrics.stasis(total["stay_pruned"], total["pruned"]),
                "mask_change": metrics.mask_change(total["revived"], total["newly_pruned"], total["weights"]),
                "sparsity": total["pruned"] / total["weights"],
            }
        )
    return pd.DataFrame(rows, columns=["step", "stasis", "mask_change", "sparsity"])


def result_of(store: RunStore) -> dict[str, Any]:
    """run, checkpoint, protocol, domains, dense and methods, as plain JSON values."""
    perplexity, layers, seconds = store.perplexity(), store.layers(), store.seconds()
    domains, info, config = store.domains, store.info, store.config
    dense = perplexity_matrix(perplexity, "dense", domains)[0]
    return {
        "run": store.id,
        "checkpoint": info.get("checkpoint", {"name": config.checkpoint}),
        "protocol": {**config.protocol.model_dump(mode="json"), "structure": str(config.structure)},
        "domains": info.get("domains", [{"spec": spec} for spec in config.domains]),
        "dense": {name: _number(value) for name, value in zip(domains, dense, strict=True)},
        "methods": [
            {
                **_method(str(m), perplexity, layers, seconds, domains),
                **_factored(store, str(m), len(domains)),
                **_thinned(store, str(m), len(domains)),
            }
            for m in config.methods
        ],
    }


def _method(
    method: str, perplexity: pd.DataFrame, layers: pd.DataFrame, seconds: pd.DataFrame, domains: list[str]
) -> dict[str, Any]:
    R = perplexity_matrix(perplexity, method, domains)
    moves = stasis_by_step(layers, method)
    last = layers[(layers["method"] == method) & (layers["step"] == len(domains))]
    phases = seconds[seconds["method"] == method].groupby("phase")["seconds"].sum()
    complete = bool(np.isfinite(R[1:]).all())
    return {
        "method": method,
        "perplexity": [[_number(value) for value in row] for row in R[1:]],
        "bwt": _number(metrics.backward_transfer(R)) if complete else None,
        "average_perplexity": _number(float(R[-1].mean())),
        "sparsity": _number(last["pruned"].sum() / last["weights"].sum()) if len(last) else None,
        "stasis": [_number(value) for value in moves["stasis"]],
        "mask_change": [_number(value) for value in moves["mask_change"]],
        "seconds": {str(phase): round(float(value), 3) for phase, value in phases.items()},
    }


def _factored(store: RunStore, method: str, step: int) -> dict[str, Any]:
    """Return what a low-rank method has besides: shares asked and stored, parameters, kinds of layers, training."""
    table = store.factors()
    last = table[(table["method"] == method) & (table["step"] == step)]
    if not len(last):
        return {}
    dense = 2 * (last["rows"] * last["columns"]).sum()
    tokens, distinct = training_of(store, method, step)
    losses = store.records.rows(
        "SELECT nats FROM losses WHERE method = ? AND step = ? ORDER BY number", (method, step)
    )
    return {
        "share": kept_share(Method.parse(method), store.config.structure),
        "label": trained_words(tokens, distinct),
        "tokens": tokens,
        "distinct_tokens": distinct,
        "losses": [nats for (nats,) in losses],
        "stored_share": _number(last["bytes"].sum() / dense),
        "parameters": int(last["parameters"].sum()),
        "kinds": {str(kind): int(count) for kind, count in last["kind"].value_counts().items()},
    }


def _thinned(store: RunStore, method: str, step: int) -> dict[str, Any]:
    """Return what a neuron method has besides; its sparsity, stasis and change are of neurons and not of weights."""
    table = store.records.table("neurons")
    table = table[table["method"] == method]
    last = table[table["step"] == step]
    if not len(last):
        return {}
    counts = ["neurons", "removed", "stay_removed", "revived", "newly_removed"]
    moves = [part[counts].sum() for _, part in table.groupby("step") if part["stay_removed"].notna().all()]
    shapes = store.info.get("checkpoint", {}).get("projections", {})
    attention = sum(out * columns for name, (out, columns) in shapes.items() if name[0] in "qkvo") * len(last)
    gone = 1 - last["removed"].sum() / last["neurons"].sum()
    feed_forward = last["parameters"].sum()
    return {
        "neurons": int(last["neurons"].sum()),
        "neurons_removed": int(last["removed"].sum()),
        "parameters": int(attention + feed_forward),
        "stored_share": _number((attention + feed_forward) / (attention + feed_forward / gone)),
        "sparsity": _number(last["removed"].sum() / last["neurons"].sum()),
        "stasis": [_number(metrics.stasis(m["stay_removed"], m["removed"])) for m in moves],
        "mask_change": [metrics.mask_change(m["revived"], m["newly_removed"], m["neurons"]) for m in moves],
    }


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return None if value is None or not np.isfinite(value) else float(value)


def done_by(store: RunStore, method: str, step: int) -> str:
    """Return what `method` had done after `step`, as the run recorded it, in words.

    Such as 'Removed 50 % per row', 'Removed 24 of 96 hidden neurons of the feed-forward layers', or 'Kept 46.2 % of the
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
    """Return how many tokens `method` had trained on after `step`, with repeats and without; 0 without training."""
    query = "SELECT tokens, distinct_tokens FROM training WHERE method = ? AND step = ?"
    rows = store.records.rows(query, (method, step))
    return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)


def _kinds(layers: pd.DataFrame) -> str:
    """Say how many of a low-rank method's layers became factors or masks, or stayed dense."""
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
