"""The command `sweep`: a grid of runs on Ray."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from copal_core.analysis import sweeps
from copal_core.cli.signals import stop_on_signal
from copal_core.config import Method, Protocol, RunConfig, Windows
from copal_core.errors import InvalidValueError
from copal_core.experiment import cluster
from copal_core.store.groups import Group, Groups, summary

AddCommand = Callable[[str, Any, str], argparse.ArgumentParser]


def add_commands(command: AddCommand) -> None:
    """Add `sweep` to the parser through `command(name, function, summary)`."""
    sweep = command("sweep", _sweep, "Compute a grid of runs on Ray; every run resumes where it was stopped.")
    sweep.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")
    sweep.add_argument(
        "--resume", default=None, metavar="SWEEP", help="go on with a sweep; no grid is needed"
    )
    for name, kind, words in (
        ("--checkpoint", str, "once for each; default: smollm2-135m"),
        ("--domain", str, "once each, in order"),
        ("--method", str, "NAME:STRATEGY, once for each"),
        ("--structure", str, "unstructured or N:M, once for each; default: unstructured"),
        ("--sparsity", float, "share removed where unstructured, once for each; default: 0.5"),
        ("--seed", int, "once for each; default: 0"),
    ):
        sweep.add_argument(name, type=kind, action="append", default=[], help=words)
    sweep.add_argument(
        "--group", choices=["row", "layer"], help="compared within, where unstructured; default: row"
    )
    sweep.add_argument(
        "--orders", type=int, default=1, help="orders of the domains: 1 as given, 0 all, n random"
    )
    sweep.add_argument("--calibration", default="16x256", metavar="COUNTxLENGTH")
    sweep.add_argument("--evaluation", default="12x256", metavar="COUNTxLENGTH")
    sweep.add_argument("--propagate", default="pruned", choices=["pruned", "dense"])
    sweep.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    sweep.add_argument("--device", default="auto")
    sweep.add_argument("--title", default="")
    add_workers(sweep)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Where work is spread to."""
    parser.add_argument("--ray-address", default="", help="of a running Ray cluster; default: start one here")
    parser.add_argument("--workers", type=int, default=0, help="at the same time; default: as many as fit")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")


@contextmanager
def holders(options: argparse.Namespace | None) -> Iterator[Any]:
    """Who holds a run's hidden states while it calibrates: this process, or workers where they are asked for."""
    from copal_core.statistics.blockwise import HiddenStates

    if options is None or not (getattr(options, "workers", 0) or getattr(options, "ray_address", "")):
        yield HiddenStates
        return
    from copal_core.experiment.cluster.calibration import sharded

    where = cluster.Cluster(options.ray_address, options.workers, options.threads)
    with cluster.connected(where) as ray:
        yield sharded(ray, where)


def _sweep(options: argparse.Namespace) -> int:
    where = cluster.Cluster(options.ray_address, options.workers, options.threads)
    cluster.require_ray()  # before a folder is made
    groups = Groups(options.runs)
    if options.resume is not None:
        group = groups.open(options.resume)
        if group.kind != sweeps.KIND:
            raise InvalidValueError(
                f"group '{group.id}' is no sweep; `groups {group.id} --resume` goes on with it"
            )
        group.forget_old_cancel()
    else:
        group = groups.create(sweeps.KIND, _configs(options), title=options.title)
    return _compute(group, where, options.json)


def _configs(options: argparse.Namespace) -> list[RunConfig]:
    protocol = Protocol(
        calibration=Windows.parse(options.calibration),
        evaluation=Windows.parse(options.evaluation),
        propagate=options.propagate,
        dtype=options.dtype,
        device=options.device,
    )
    grid = sweeps.Grid(
        checkpoints=options.checkpoint or ["smollm2-135m"],
        domains=options.domain,
        methods=[Method.parse(text) for text in options.method],
        structures=sweeps.structures(options.structure or ["unstructured"], options.sparsity, options.group),
        seeds=options.seed or [0],
        orders=options.orders,
        protocol=protocol,
    )
    from copal_core.cli.main import check_names

    return [check_names(config) for config in grid.configs()]


def _compute(group: Group, where: cluster.Cluster, as_json: bool) -> int:
    print(f"sweep {group.id}: {len(group.members)} runs in {group.root}", file=sys.stderr)
    with stop_on_signal() as stopped:
        cluster.compute(group, where, _tell, stopped)
    _print(group, as_json)
    return 0


def _tell(event: dict[str, Any]) -> None:
    words = event["problem"] or "done"
    print(f"{event['done']} of {event['of']}  {event['run']}  {words}", file=sys.stderr)


def _print(group: Group, as_json: bool) -> None:
    table = sweeps.outcomes(group)
    if as_json:
        rows = json.loads(table.to_json(orient="records"))
        print(json.dumps({**summary(group), "outcomes": rows}, ensure_ascii=False))
        return
    print(
        f"{group.id}: {group.state().status}\naverage perplexity after the last domain and BWT (backward transfer), "
        "lower is better"
    )
    named = ("checkpoint", "method", "structure")
    wide = {name: 2 + max(len(text) for text in (name, *table[name])) for name in named}
    titles = "".join(f"{name:{width}}" for name, width in wide.items())
    print(f"{titles}{'seed':>4}{'kept':>8}{'dense':>10}{'average':>10}{'BWT':>9}")
    for row in table.sort_values("average").itertuples():
        transfer = "-" if row.backward_transfer is None else f"{row.backward_transfer:.2f}"
        print(
            "".join(f"{getattr(row, name):{width}}" for name, width in wide.items())
            + f"{row.seed:>4}{row.kept:>8.1%}"
            f"{row.dense_average:>10.2f}{row.average:>10.2f}{transfer:>9}"
        )
