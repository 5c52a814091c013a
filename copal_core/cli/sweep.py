"""The command `sweep`: a grid of runs on Ray."""

from __future__ import annotations

import argparse
import json
from typing import Any

from copal_core.analysis import sweeps
from copal_core.cli import options as shared
from copal_core.cli.output import print_json, tell
from copal_core.cli.signals import stop_on_signal
from copal_core.config import Method, RunConfig
from copal_core.errors import InvalidValueError
from copal_core.experiment import cluster
from copal_core.store.groups import Group, Groups, summary


def add_commands(command: shared.AddCommand) -> None:
    """Add `sweep` to the parser."""
    sweep = command("sweep", _sweep, "Compute a grid of runs on Ray; every run resumes where it was stopped.")
    shared.with_runs(sweep)
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
    shared.with_group(sweep)
    sweep.add_argument(
        "--orders", type=int, default=1, help="orders of the domains: 1 as given, 0 all, n random"
    )
    shared.with_protocol(sweep, seed=False)
    shared.with_workers(shared.with_title(sweep))


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
    grid = sweeps.Grid(
        checkpoints=options.checkpoint or [shared.DEFAULT_CHECKPOINT],
        domains=options.domain,
        methods=[Method.parse(text) for text in options.method],
        structures=sweeps.structures(options.structure or ["unstructured"], options.sparsity, options.group),
        seeds=options.seed or [0],
        orders=options.orders,
        protocol=shared.protocol_from(options, seed=0),  # each run has a seed of its own
    )
    return [shared.check_names(config) for config in grid.configs()]


def _compute(group: Group, where: cluster.Cluster, as_json: bool) -> int:
    tell(f"sweep {group.id}: {len(group.members)} runs in {group.root}")
    with stop_on_signal() as stopped:
        cluster.compute(group, where, _tell, stopped)
    _print(group, as_json)
    return 0


def _tell(event: dict[str, Any]) -> None:
    words = event["problem"] or "done"
    tell(f"{event['done']} of {event['of']}  {event['run']}  {words}")


def _print(group: Group, as_json: bool) -> None:
    table = sweeps.outcomes(group)
    if as_json:
        rows = json.loads(table.to_json(orient="records"))
        print_json({**summary(group), "outcomes": rows})
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
