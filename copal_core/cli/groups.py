"""The commands `repeat`, `orders`, `sweep` and `groups`: runs that differ in something, computed here or on Ray."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from copal_core.analysis import groups as analysis
from copal_core.cli import options as shared
from copal_core.cli.output import print_json, say, tell
from copal_core.cli.signals import stop_on_signal
from copal_core.config import Method, RunConfig, Windows
from copal_core.errors import InvalidValueError
from copal_core.experiment import cluster, groups
from copal_core.store import variations
from copal_core.store.groups import Group, Groups, summary
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs


def add_commands(command: shared.AddCommand) -> None:
    """Add the commands to the parser."""
    repeat = command("repeat", _repeat, "Repeat a run over seeds and calibration sizes.")
    shared.with_run(repeat, "whose settings are repeated")
    repeat.add_argument("--seeds", type=int, default=5, help="how many, from the run's own on")
    repeat.add_argument(
        "--calibration", action="append", default=[], metavar="COUNTxLENGTH", help="once for each size"
    )
    ordered = command("orders", _orders, "Repeat a run over the orders of its domains.")
    shared.with_run(ordered, "whose settings are repeated")
    ordered.add_argument("--orders", type=int, default=0, help="so many random ones; default: all")
    ordered.add_argument("--seed", type=int, default=0, help="decides which orders are drawn")
    sweep = command("sweep", _sweep, "Compute a grid of runs; every run resumes where it was stopped.")
    _add_grid(shared.with_runs(sweep))
    for parser in (repeat, ordered, sweep):
        shared.with_workers(shared.with_title(parser))
    listed = shared.with_runs(command("groups", _groups, "List groups, show one, go on with it or stop it."))
    listed.add_argument("group", nargs="?", default=None)
    listed.add_argument("--resume", action="store_true", help="compute what is missing")
    listed.add_argument("--cancel", action="store_true", help="stop within one block")
    listed.add_argument("--delete", action="store_true", help="move its runs into the trash")
    shared.with_workers(listed)


def _add_grid(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument(
        "--resume", default=None, metavar="SWEEP", help="go on with a sweep; no grid is needed"
    )
    for name, kind, words in (
        ("--checkpoint", str, f"once for each; default: {shared.DEFAULT_CHECKPOINT}"),
        ("--domain", str, "once each, in order"),
        ("--method", str, "NAME:STRATEGY, once for each"),
        ("--structure", str, "unstructured or N:M, once for each; default: unstructured"),
        ("--sparsity", float, "share removed where unstructured, once for each; default: 0.5"),
        ("--seed", int, "once for each; default: 0"),
    ):
        sweep.add_argument(name, type=kind, action="append", default=[], help=words)
    shared.with_group(sweep)
    sweep.add_argument(
        "--orders", type=int, default=1, help="orders of the domains: 1 as given, 0 all, n random"
    )
    shared.with_protocol(sweep, seed=False)


# -- commands ------------------------------------------------------------------------------------------


def _repeat(options: argparse.Namespace) -> int:
    base = Runs(options.runs).open(options.run)
    sizes = [Windows.parse(text) for text in options.calibration]
    return _begin(options, variations.seeds(base.config, options.seeds, sizes), base)


def _orders(options: argparse.Namespace) -> int:
    base = Runs(options.runs).open(options.run)
    return _begin(options, variations.orders(base.config, options.orders, options.seed), base)


def _sweep(options: argparse.Namespace) -> int:
    if options.resume is not None:
        return _resume(Groups(options.runs).open(options.resume), options)
    return _begin(options, _grid(options))


def _grid(options: argparse.Namespace) -> list[RunConfig]:
    structures = options.structure or ["unstructured"]
    grid = variations.Grid(
        checkpoints=options.checkpoint or [shared.DEFAULT_CHECKPOINT],
        domains=options.domain,
        methods=[Method.parse(text) for text in options.method],
        structures=variations.structures(structures, options.sparsity, options.group),
        seeds=options.seed or [0],
        orders=options.orders,
        protocol=shared.protocol_from(options, seed=0),  # each run has a seed of its own
    )
    return [shared.check_names(config) for config in grid.configs()]


def _groups(options: argparse.Namespace) -> int:
    root = Groups(options.runs)
    if options.group is None:
        _list([summary(group) for group in root.list()], options.json)
        return 0
    group = root.open(options.group)
    if options.resume + options.cancel + options.delete > 1:
        raise InvalidValueError("--resume, --cancel and --delete exclude each other; choose one")
    if options.resume:
        return _resume(group, options)
    if options.delete:
        groups.discard(group)
        say(options, {"group": group.id, "deleted": True}, f"{group.id} is in the trash")
        return 0
    if options.cancel:
        group.request_cancel()
    _print(group, options.json)
    return 0


# -- computing -----------------------------------------------------------------------------------------


def _begin(options: argparse.Namespace, configs: Sequence[RunConfig], base: RunStore | None = None) -> int:
    where = shared.cluster_from(options)  # before a folder is made
    title = options.title or (base.info.get("title") or base.id if base is not None else "")
    return _compute(Groups(options.runs).create(configs, base, title), where, options.json)


def _resume(group: Group, options: argparse.Namespace) -> int:
    where = shared.cluster_from(options) or groups.place_of(group)
    group.forget_old_cancel()
    return _compute(group, where, options.json)


def _compute(group: Group, where: cluster.Cluster | None, as_json: bool) -> int:
    how = (
        "on Ray" if where is not None else "here, one after another; --workers N computes N at a time on Ray"
    )
    tell(f"group {group.id}: {len(group.members)} runs in {group.root}, computed {how}")
    with stop_on_signal() as stopped:
        groups.compute(group, where, _tell, stopped)
    _print(group, as_json)
    return 0


def _tell(event: dict[str, Any]) -> None:
    """One line of progress on stderr."""
    if event["event"] == "finished":
        tell(f"{event['done']} of {event['of']}  {event['run']}  {event['problem'] or 'done'}")
    elif event["event"] == "evaluated":
        place = f"run {event['member']} of {event['members']}, {event['progress']:4.0%}"
        tell(f"{place}  step {event['step']}  {event['method']}")


# -- printing ------------------------------------------------------------------------------------------


def _list(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    for row in rows:
        done = sum(run["status"] == "done" for run in row["runs"])
        print(f"{row['group']}  {row['status']:11}  {done} of {len(row['runs'])} runs  {row['title']}")


def _print(group: Group, as_json: bool) -> None:
    table = analysis.outcomes(group.finished())
    spread = analysis.spread(table, "average", group.sampled)
    verdicts = analysis.verdicts(table, "average", group.sampled)
    if group.kind == "sweep":
        table = analysis.without_dense(table)  # which stands beside every run, as dense_average
    if as_json:
        content = {
            **summary(group),
            "outcomes": json.loads(table.to_json(orient="records")),
            "spread": json.loads(spread.to_json(orient="records")),
            "verdicts": verdicts,
        }
        print_json(content)
        return
    print(f"{group.id}: {group.state().status}\naverage perplexity after the last domain, lower is better")
    if group.kind == "sweep":
        _print_columns(
            table.sort_values("average"),
            ["checkpoint", "method", "structure", "seed"],
            {"kept": ".1%", "dense_average": ".2f", "average": ".2f", "backward_transfer": ".2f"},
        )
        print("backward transfer: 0 is nothing forgotten, below 0 earlier domains improved")
    else:
        settings = [name for name in spread.columns[: spread.columns.get_loc("runs")] if name != "windows"]
        _print_columns(spread, [*settings, "runs"], {"mean": ".3f", "least": ".3f", "most": ".3f"})
        print("\n".join(verdicts))


def _print_columns(table: Any, names: Sequence[str], formats: dict[str, str]) -> None:
    """Columns of words to the left, then numbers; a number that is not there is a dash."""
    columns = {name: [str(value) for value in table[name]] for name in names}
    for name, form in formats.items():
        columns[name] = ["-" if value != value else format(value, form) for value in table[name]]
    wide = {name: max(len(text) for text in (name, *cells)) for name, cells in columns.items()}
    for line in zip(*([name.replace("_", " "), *cells] for name, cells in columns.items()), strict=True):
        cells = (
            f"{cell:<{wide[name]}}" if name in names else f"{cell:>{wide[name]}}"
            for name, cell in zip(columns, line, strict=True)
        )
        print("  ".join(cells).rstrip())
