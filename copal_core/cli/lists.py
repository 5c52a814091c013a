"""The commands `checkpoints`, `domains` and `methods`: everything a run may be made of."""

from __future__ import annotations

import argparse

from copal_core.cli.options import AddCommand
from copal_core.cli.output import print_rows


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser."""
    command("checkpoints", _checkpoints, "List the checkpoints that work without a download.")
    command("domains", _domains, "List the built-in text domains and the hub presets.")
    command("methods", _methods, "List criteria, decompositions, neuron selectors and strategies.")


def _checkpoints(options: argparse.Namespace) -> None:
    from copal_core.checkpoints import catalogue

    names = ("name", "label", "note", "available", "why_not")
    print_rows([{name: getattr(one, name) for name in names} for one in catalogue()], options.json)


def _domains(options: argparse.Namespace) -> None:
    from copal_core.domains import builtins, hub_presets

    names = ("name", "label", "description", "available", "why_not")
    rows = [{name: getattr(one, name) for name in names} for one in builtins()]
    rows += [{"name": name, "label": label} for name, label in hub_presets().items()]
    print_rows(rows, options.json)


def _methods(options: argparse.Namespace) -> None:
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
