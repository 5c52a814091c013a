"""The commands `repeat`, `orders` and `groups`: the same run over seeds, calibration sizes or orders of domains."""

from __future__ import annotations

import argparse
import json
from typing import Any

from copal_core.analysis import bands
from copal_core.cli.options import AddCommand, with_run, with_runs, with_title
from copal_core.cli.output import print_json, say, tell
from copal_core.cli.signals import stop_on_signal
from copal_core.config import RunConfig, Windows
from copal_core.errors import InvalidValueError
from copal_core.experiment import group_loop
from copal_core.store.groups import Group, Groups, orders, seeds, summary
from copal_core.store.runs import Runs


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser."""
    repeat = command("repeat", _repeat, "Repeat a run over seeds and calibration sizes.")
    with_run(repeat, "whose settings are repeated")
    repeat.add_argument("--seeds", type=int, default=5, help="how many, from the run's own on")
    repeat.add_argument(
        "--calibration", action="append", default=[], metavar="COUNTxLENGTH", help="once for each size"
    )
    with_title(repeat)
    ordered = command("orders", _orders, "Repeat a run over the orders of its domains.")
    with_run(ordered, "whose settings are repeated")
    ordered.add_argument("--orders", type=int, default=None, help="so many random ones; default: all")
    ordered.add_argument("--seed", type=int, default=0, help="decides which orders are drawn")
    with_title(ordered)
    listed = with_runs(command("groups", _groups, "List groups, show one, go on with it or stop it."))
    listed.add_argument("group", nargs="?", default=None)
    listed.add_argument("--resume", action="store_true", help="compute what is missing")
    listed.add_argument("--cancel", action="store_true", help="stop within one block")
    listed.add_argument("--delete", action="store_true", help="move its runs into the trash")


def _repeat(options: argparse.Namespace) -> int:
    base = Runs(options.runs).open(options.run)
    sizes = [Windows.parse(text) for text in options.calibration]
    return _start(options, "repeat", seeds(base.config, options.seeds, sizes), base)


def _orders(options: argparse.Namespace) -> int:
    base = Runs(options.runs).open(options.run)
    return _start(options, "orders", orders(base.config, options.orders, options.seed), base)


def _start(options: argparse.Namespace, kind: str, configs: list[RunConfig], base: Any) -> int:
    title = options.title or base.info.get("title") or base.id
    group = Groups(options.runs).create(kind, configs, base, title)
    return _compute(group, options.json)


def _groups(options: argparse.Namespace) -> int:
    root = Groups(options.runs)
    if options.group is None:
        rows = [summary(group) for group in root.list()]
        if options.json:
            print_json(rows)
        for row in rows if not options.json else ():
            done = sum(run["status"] == "done" for run in row["runs"])
            print(f"{row['group']}  {row['status']:11}  {done} of {len(row['runs'])} runs  {row['title']}")
        return 0
    group = root.open(options.group)
    if options.resume + options.cancel + options.delete > 1:
        raise InvalidValueError("--resume, --cancel and --delete exclude each other; choose one")
    if options.delete:
        group_loop.discard(group)
        say(options, {"group": group.id, "deleted": True}, f"{group.id} is in the trash")
        return 0
    if options.cancel:
        group_loop.cancel(group)
    if options.resume:
        group.forget_old_cancel()
        return _compute(group, options.json)
    _print(group, options.json)
    return 0


def _compute(group: Group, as_json: bool) -> int:
    tell(f"group {group.id}: {len(group.members)} runs in {group.root}")
    with stop_on_signal() as stopped:
        group_loop.compute(group, _tell, stopped)
    _print(group, as_json)
    return 0


def _tell(event: dict[str, Any]) -> None:
    if event["event"] == "evaluated":
        tell(
            f"run {event['member']} of {event['members']}, {event['progress']:4.0%}  step {event['step']}  "
            f"{event['method']}"
        )


def _print(group: Group, as_json: bool) -> None:
    table = bands.outcomes(group.finished())
    spread = bands.spread(table, "average")
    words = "orders" if group.kind == "orders" else "runs"
    verdicts = [
        gap.in_words(words)
        for _, part in table.groupby("calibration", sort=False)
        for gap in bands.neighbours(bands.gaps(part, "average"))
    ]
    if group.kind == "orders":
        verdicts = [*bands.order_in_words(table, "average"), *verdicts]
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
    print(f"{'method':34}{'calibration':>12}{'runs':>6}{'mean':>10}{'least':>10}{'most':>10}")
    for row in spread.itertuples():
        print(
            f"{row.method[:32]:34}{row.calibration:>12}{row.runs:>6}{row.mean:>10.3f}{row.least:>10.3f}{row.most:>10.3f}"
        )
    print("\n".join(verdicts))
