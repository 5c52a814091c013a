"""The commands that take a run elsewhere: `report`, `tables`, `masks`, `export`, `bundle` and `reproduce`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

AddCommand = Callable[[str, Any, str], argparse.ArgumentParser]
Compute = Callable[[RunStore], None]


def add_commands(command: AddCommand, compute: Compute) -> None:
    """Add the commands to the parser. compute: computes a run, progress on stderr, signals minded."""

    def made(name: str, function: Any, summary: str, out: str | None) -> argparse.ArgumentParser:
        parser = command(name, function, summary)
        parser.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")
        if out:
            parser.add_argument("run")
            parser.add_argument("--out", type=Path, required=True, metavar=out)
        return parser

    def of_a_result(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--method", required=True)
        parser.add_argument("--step", type=int, default=None, help="default: the last")

    made("report", _report, "Write a run as one HTML file that needs no network.", "FILE.html")
    tables = made("tables", _tables, "Write all tables of a run as one zip.", "FILE.zip")
    tables.add_argument("--format", default="csv", choices=["csv", "parquet", "json"])
    of_a_result(
        made("masks", _masks, "Write the masks of one result, a bit a weight, with a loader.", "FILE.zip")
    )
    export = made("export", _export, "Write a pruned checkpoint that transformers loads as it is.", "DIR")
    of_a_result(export)
    export.add_argument(
        "--format",
        default="hf",
        choices=["hf", "compressed-tensors"],
        help="compressed-tensors: its format dense",
    )
    export.add_argument("--no-check", action="store_true", help="do not read it back and measure it again")
    made("bundle", _bundle, "Write what is needed to repeat a run, in one zip.", "FILE.zip")
    again = made("reproduce", _reproduce(compute), "Repeat a run from a bundle, and compare.", None)
    again.add_argument("bundle", type=Path)
    again.add_argument(
        "--checkpoint", help="where the same weights are found here; default: as in the bundle"
    )
    again.add_argument("--title", default="")


def _open(options: argparse.Namespace) -> RunStore:
    return Runs(options.runs).open(options.run)


def _report(options: argparse.Namespace) -> None:
    from copal_core.export.report import write_report

    _say(options, write_report(_open(options), options.out))


def _tables(options: argparse.Namespace) -> None:
    from copal_core.export.tables import write_tables

    _say(options, write_tables(_open(options), options.out, options.format))


def _masks(options: argparse.Namespace) -> None:
    from copal_core.export.packed_masks import write_masks

    store = _open(options)
    _say(options, write_masks(store, options.method, _step(store, options), options.out))


def _bundle(options: argparse.Namespace) -> None:
    from copal_core.export.bundle import write_bundle

    _say(options, write_bundle(_open(options), options.out))


def _export(options: argparse.Namespace) -> None:
    store = _open(options)
    step = _step(store, options)
    if options.no_check and options.format == "hf":
        from copal_core.export.checkpoint import export_checkpoint

        folder = export_checkpoint(store, options.method, step, options.out)
        found: dict[str, Any] = {"folder": str(folder), "format": "hf", "domains": {}}
    else:
        from copal_core.export.checkpoints import export_and_check

        found = export_and_check(store, options.method, step, options.out, options.format, _tell)
    if options.json:
        print(json.dumps({"run": store.id, **found}, ensure_ascii=False))
        return
    print(f"exported to {found['folder']}")
    for name, pair in found["domains"].items():
        print(f"{name}: perplexity {pair['run']:.6g} in the run, {pair['reloaded']:.6g} read back")


def _reproduce(compute: Compute) -> Callable[[argparse.Namespace], None]:
    def reproduce(options: argparse.Namespace) -> None:
        from copal_core.export.bundle import compare, create_from, read_bundle

        bundle = read_bundle(options.bundle)
        store = create_from(bundle, Runs(options.runs), options.title, options.checkpoint)
        print(f"run {store.id} in {store.folder.parent}", file=sys.stderr)
        compute(store)
        found = compare(bundle, store)
        if options.json:
            print(json.dumps(found, ensure_ascii=False))
        elif found["identical"]:
            print(f"run {store.id}: all {found['compared']} perplexities are identical")
        else:
            largest = f"{found['largest_relative_difference']:.3g} of the value ({found['where']})"
            print(
                f"run {store.id}: {found['compared']} perplexities compared; the largest difference is {largest}"
            )
            for name, (was, now) in found["other_versions"].items():
                print(f"{name}: {was} then, {now} now")

    return reproduce


def _step(store: RunStore, options: argparse.Namespace) -> int:
    return len(store.config.domains) if options.step is None else int(options.step)


def _say(options: argparse.Namespace, out: Path) -> None:
    size = out.stat().st_size
    if options.json:
        print(json.dumps({"run": options.run, "file": str(out), "bytes": size}))
    else:
        print(f"{out}: {size / 1e6:.2f} MB")


def _tell(label: str, done: int, total: int) -> None:
    print(f"{label} {done + 1}/{total}" if total else label, file=sys.stderr)
