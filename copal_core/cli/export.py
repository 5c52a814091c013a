"""The commands that take a run elsewhere: `report`, `tables`, `masks`, `bundle`, `export` and `reproduce`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from copal_core.cli import runs
from copal_core.cli.options import AddCommand, with_result, with_run, with_runs, with_title
from copal_core.cli.output import print_json, say, tell, tell_step
from copal_core.export import outputs
from copal_core.store.runs import Runs


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser."""

    def writing(name: str, kind: str, function: Any, summary: str, out: str) -> argparse.ArgumentParser:
        parser = with_run(command(name, function, summary))
        parser.add_argument("--out", type=Path, required=True, metavar=out)
        parser.set_defaults(kind=kind)
        return parser

    words = "Write a run as one HTML file that needs no network."
    writing("report", "report", _write, words, "FILE.html")
    tables = writing("tables", "tables", _write, "Write all tables of a run as one zip.", "FILE.zip")
    tables.add_argument("--format", default="csv", choices=["csv", "parquet", "json"])
    words = "Write the masks of one result, a bit a weight, with a loader."
    with_result(writing("masks", "masks", _write, words, "FILE.zip"))
    words = "Write a pruned checkpoint that transformers loads as it is."
    export = with_result(writing("export", "checkpoint", _export, words, "DIR"))
    export.add_argument(
        "--format",
        default="hf",
        choices=["hf", "compressed-tensors"],
        help="compressed-tensors: its format dense",
    )
    export.add_argument("--no-check", action="store_true", help="do not read it back and measure it again")
    writing("bundle", "bundle", _write, "Write what is needed to repeat a run, in one zip.", "FILE.zip")
    again = with_runs(command("reproduce", _reproduce, "Repeat a run from a bundle, and compare."))
    again.add_argument("bundle", type=Path)
    words = "where the same weights are found here; default: as in the bundle"
    again.add_argument("--checkpoint", help=words)
    with_title(again)


def _output(options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Write what the command is for; an option that it does not have is at its default."""
    names = {"method": "method", "step": "step", "format": "form"}
    asked = {names[name]: value for name, value in vars(options).items() if name in names}
    return outputs.write(options.kind, Runs(options.runs).open(options.run), options.out, **asked, **more)


def _write(options: argparse.Namespace) -> None:
    written = _output(options)
    say(options, written, f"{written['file']}: {written['bytes'] / 1e6:.2f} MB")


def _export(options: argparse.Namespace) -> None:
    written = _output(options, report=tell_step, check=not options.no_check)
    if options.json:
        print_json(written)
        return
    print(f"exported to {written['folder']}")
    for name, pair in written["domains"].items():
        print(f"{name}: perplexity {pair['run']:.6g} in the run, {pair['reloaded']:.6g} read back")


def _reproduce(options: argparse.Namespace) -> None:
    from copal_core.export.bundle import compare, create_from, read_bundle

    bundle = read_bundle(options.bundle)
    store = create_from(bundle, Runs(options.runs), options.title, options.checkpoint)
    tell(f"run {store.id} in {store.folder.parent}")
    runs.compute(store)
    found = compare(bundle, store)
    if options.json:
        print_json(found)
    elif found["identical"]:
        print(f"run {store.id}: all {found['compared']} perplexities are identical")
    else:
        largest = f"{found['largest_relative_difference']:.3g} of the value ({found['where']})"
        print(
            f"run {store.id}: {found['compared']} perplexities compared; the largest difference is {largest}"
        )
        for name, (was, now) in found["other_versions"].items():
            print(f"{name}: {was} then, {now} now")
