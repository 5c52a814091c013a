"""Comparability of runs: whose perplexities may stand in one figure, and why others may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from copal_core.store.run_store import RunStore


def protocol_of(store: RunStore) -> dict[str, str]:
    """Return what two runs must share for their perplexities to be compared: name -> value, as people read it."""
    protocol, info = store.config.protocol, store.info
    checkpoint = info.get("checkpoint", {})
    return {
        "checkpoint": str(checkpoint.get("name") or store.config.checkpoint),
        "weights": str(checkpoint.get("fingerprint", ""))[:12],
        "domains": " → ".join(store.domains),
        "text": ", ".join(str(d.get("content_hash", ""))[:8] for d in info.get("domains", [])),
        "calibration": str(protocol.calibration).replace("x", "×"),
        "evaluation": str(protocol.evaluation).replace("x", "×"),
        "propagation": protocol.propagate,
        "seed": str(protocol.seed),
        "number format": str(checkpoint.get("dtype") or protocol.dtype),
    }


def group_by_protocol(stores: Sequence[RunStore]) -> list[list[RunStore]]:
    """Parts of runs of the same protocol, in the order given; each part may be drawn in one figure."""
    parts: dict[tuple[str, ...], list[RunStore]] = {}
    for store in stores:
        parts.setdefault(tuple(protocol_of(store).values()), []).append(store)
    return list(parts.values())


def differences(one: RunStore, other: RunStore) -> list[str]:
    """Why two runs are not drawn together: one phrase for each thing in which they differ."""
    mine, theirs = protocol_of(one), protocol_of(other)
    found: list[str] = []
    for name, value in mine.items():
        if value == theirs[name]:
            continue
        if name == "weights":
            if mine["checkpoint"] == theirs["checkpoint"]:
                found.append("the checkpoint's weights have changed in between")
        elif name == "text":
            # other seeds, lengths and domains draw other text anyway, and are named by themselves
            if all(mine[key] == theirs[key] for key in ("domains", "calibration", "evaluation", "seed")):
                found.append("the text of a domain has changed in between")
        else:
            found.append(f"{name} {value or 'unknown'} against {theirs[name] or 'unknown'}")
    return found


def reason(stores: Sequence[Any]) -> str:
    """Why the parts of `group_by_protocol` are shown apart, in one sentence; empty when there is one part."""
    parts = group_by_protocol(stores)
    if len(parts) < 2:
        return ""
    phrases = list(
        dict.fromkeys(phrase for part in parts[1:] for phrase in differences(parts[0][0], part[0]))
    )
    return (
        f"These runs are shown in {len(parts)} parts, since perplexities compare only under one protocol. "
        f"They differ in {'; '.join(phrases[:6])}."
    )
