"""The command `neurons`: whole hidden neurons removed by every selector at the same count, the dense model beside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from copal_core.cli import options as shared
from copal_core.cli import runs
from copal_core.cli.output import print_json
from copal_core.config import Method, RunConfig
from copal_core.errors import InvalidValueError
from copal_core.system.files import new_folder


def add_commands(command: shared.AddCommand) -> None:
    """Add the command to the parser."""
    made = command("neurons", _neurons, "Remove redundant neurons, and measure the smaller model.")
    shared.with_domains(shared.with_checkpoint(shared.with_runs(made)), "once each, in order, as for run")
    made.add_argument("--share", action="append", type=float, help="of the neurons removed; default: 0.1")
    made.add_argument(
        "--method",
        action="append",
        help="a selector, such as mutual-information[threshold=0.1]; default: all",
    )
    made.add_argument("--strategy", default="accumulate", help="what is remembered between domains")
    shared.with_title(shared.with_protocol(made))
    made.add_argument("--no-speed", action="store_true", help="do not measure tokens a second")
    made.add_argument("--out", type=Path, metavar="DIR", help="export the first method at the first share")


def _neurons(options: argparse.Namespace) -> None:
    from copal_core.analysis.results import result_of

    config = _config(options)
    out = new_folder(options.out) if options.out else None
    store = runs.create(config, options)
    runs.compute(store)
    result, steps = result_of(store), len(config.domains)
    for entry, method in zip(result["methods"], config.methods, strict=True):
        entry["share"] = method.options["share"]
    if not options.no_speed:
        result["speed"] = _speeds(store, config, steps)
    if out is not None:
        from copal_core.export.checkpoint import export_checkpoint

        result["exported"] = str(export_checkpoint(store, str(config.methods[0]), steps, out))
    if options.json:
        print_json(result)
        return
    runs.print_result(store, False)
    for entry in result["methods"]:
        print(
            f"{entry['method'][:48]:48} {entry['neurons_removed']:,} of {entry['neurons']:,} neurons removed, "
            f"{entry['stored_share']:.1%} of the projections' bytes"
        )
    for speed in result.get("speed", []):
        print(
            f"removed {speed['share']:.1%}: {speed['parameters']:,} parameters, {speed['bytes']:,} bytes at 16 bits, "
            f"prefill {speed['prefill']:.1f} tokens/s, decode {speed['decode']:.1f} tokens/s"
        )


def _config(options: argparse.Namespace) -> RunConfig:
    """The run of every selector at every share. Raises InvalidValueError for a method that is no selector."""
    from copal_core.methods.neurons import NEURONS

    methods = []
    for share in options.share or [0.1]:
        for text in options.method or NEURONS.names():
            method = Method.parse(text if ":" in text else f"{text}:{options.strategy}")
            if method.name not in NEURONS.names():
                known = ", ".join(NEURONS.names())
                raise InvalidValueError(f"method '{text}' chooses no neurons; known: {known}")
            chosen = {"share": share, **method.options}
            methods.append(Method(name=method.name, strategy=method.strategy, options=chosen))
    return RunConfig(
        checkpoint=options.checkpoint,
        domains=tuple(options.domain),
        methods=tuple(methods),
        protocol=shared.protocol_from(options),
    )


def _speeds(store: Any, config: RunConfig, step: int) -> list[dict[str, float]]:
    """The dense model, and one smaller model for each share: selectors remove equally many."""
    from copal_core.export.smaller import measure_smaller

    found: list[dict[str, float]] = []
    for method in config.methods:
        share = float(method.options["share"])
        if share in {entry["share"] for entry in found}:
            continue
        measured = measure_smaller(store, str(method), step)
        if not found:
            found.append({"share": 0.0, **measured["dense"]})
        found.append({"share": share, **measured["smaller"]})
    return found
