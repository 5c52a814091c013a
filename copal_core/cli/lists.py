"""The commands `checkpoints`, `domains` and `methods`: what there is."""

from __future__ import annotations

import argparse
import json
from typing import Any


def list_checkpoints(options: argparse.Namespace) -> None:
    """The checkpoints that work without a download."""
    from copal_core.checkpoints import catalogue

    rows = [
        {"name": c.name, "label": c.label, "note": c.note, "available": c.available, "why_not": c.why_not}
        for c in catalogue()
    ]
    print_rows(rows, options.json)


def list_domains(options: argparse.Namespace) -> None:
    """The built-in text domains and the hub presets."""
    from copal_core.domains import builtins, hub_presets

    rows = [
        {
            "name": d.name,
            "label": d.label,
            "description": d.description,
            "available": d.available,
            "why_not": d.why_not,
        }
        for d in builtins()
    ]
    rows += [{"name": name, "label": label} for name, label in hub_presets().items()]
    print_rows(rows, options.json)


def list_methods(options: argparse.Namespace) -> None:
    """Criteria, decompositions, neuron selectors and strategies."""
    from copal_core.methods.criteria import CRITERIA
    from copal_core.methods.lowrank import LOWRANK
    from copal_core.methods.neurons import NEURONS
    from copal_core.methods.strategies import STRATEGIES

    rows = [
        {"kind": registry.kind, "name": name, "summary": summary}
        for registry in (CRITERIA, LOWRANK, NEURONS, STRATEGIES)
        for name, summary in registry.summaries().items()
    ]
    print_rows(rows, options.json)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows as one JSON list, or a line each of what they say."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        values = [", ".join(value) if isinstance(value, list) else value for value in row.values()]
        print("  ".join(str(value) for value in values if value not in ("", None, True)))
