"""The commands that make, compute and look after runs, from `run` to `trash`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from copal_core.cli import options as shared
from copal_core.cli.output import (
    cells,
    heads,
    print_json,
    print_rows,
    say,
    tell,
    tell_event,
)
from copal_core.cli.signals import stop_on_signal
from copal_core.config import Method, RunConfig, Structure
from copal_core.errors import CopalError, InvalidValueError
from copal_core.experiment import processes
from copal_core.figures.numbers import several
from copal_core.store import shelf
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs, RunSummary, matching


def add_commands(command: shared.AddCommand) -> None:
    """Add the commands to the parser."""
    _add_run(command("run", _run, "Prune for a sequence of domains and measure each step."))
    show = shared.with_runs(command("show", _show, "Print a run's result, or list the runs."))
    show.add_argument("run", nargs="?", default=None)
    shared.with_workers(shared.with_run(command("resume", _resume, "Go on with a run that was stopped.")))
    shared.with_run(command("cancel", _cancel, "Stop a run within one block."))
    branch = shared.with_run(command("branch", _branch, "Same past up to a step, another domain next."))
    branch.add_argument("--step", type=int, required=True)
    branch.add_argument("--domain", required=True)
    undo = command("undo", _undo, "A new run without the last domain; the old one stays.")
    shared.with_title(shared.with_run(undo))
    _add_list(command("runs", _list, "List the runs, with their size on disk."))
    rename = shared.with_run(command("rename", _rename, "Give a run another title; its id stays."))
    rename.add_argument("title")
    shared.with_run(command("note", _note, "Write a note beside a run.")).add_argument("text")
    shared.with_run(command("delete", _delete, "Move a run into the trash."))
    shared.with_run(command("restore", _restore, "Take a run out of the trash."))
    trash = shared.with_runs(command("trash", _trash, "List what is in the trash."))
    trash.add_argument("--empty", action="store_true", help="delete it for good")


def _add_run(run: argparse.ArgumentParser) -> None:
    shared.with_domains(shared.with_checkpoint(shared.with_runs(run)))
    run.add_argument("--method", action="append", required=True, help="CRITERION:STRATEGY, once for each")
    run.add_argument(
        "--structure", default="unstructured", help="unstructured, or N:M = keep N of each M inputs"
    )
    run.add_argument("--sparsity", type=float, help="share removed where unstructured; default: 0.5")
    shared.with_protocol(shared.with_group(run))
    words = "last: only that of the last domain; joint, restart"
    run.add_argument("--steps", choices=["all", "last"], default="all", help=words)
    run.add_argument("--map-size", type=int, default=64, help="side of the pooled heatmap tiles")
    shared.with_title(run)
    run.add_argument("--plan", action="store_true", help="say what it would take, and compute nothing")
    shared.with_workers(run)


def _add_list(listed: argparse.ArgumentParser) -> None:
    shared.with_runs(listed)
    listed.add_argument("--status", help="only those: done, running, cancelled, failed, interrupted")
    listed.add_argument("--checkpoint", help="only those of this checkpoint")
    listed.add_argument("--domain", help="only those with this domain")
    listed.add_argument("--method", help="only those with this method, such as copal or copal:accumulate")
    listed.add_argument("--text", default="", help="only those whose title, note or id holds this")


def _open(options: argparse.Namespace) -> RunStore:
    return Runs(options.runs).open(options.run)


# -- computing -----------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> None:
    config = RunConfig(
        checkpoint=options.checkpoint,
        domains=tuple(options.domain),
        methods=tuple(Method.parse(text) for text in options.method),
        structure=Structure.parse(options.structure, options.sparsity, options.group),
        protocol=shared.protocol_from(options),
        steps=options.steps,
    )
    if options.plan:
        print_plan(shared.check_names(config), options.json)
    else:
        _compute_and_print(create(config, options), options)


def _resume(options: argparse.Namespace) -> None:
    store = _open(options)
    if store.recorded:
        raise CopalError(f"run '{store.id}' is a recorded run; it is finished")
    store.forget_old_cancel()
    _compute_and_print(store, options)


def _branch(options: argparse.Namespace) -> None:
    from copal_core.domains import find

    domain = find(options.domain).spec  # refuses an unknown one before a run's folder is made
    store = processes.branch(_open(options), options.step, domain)
    tell(f"run {store.id} in {store.folder.parent}")
    _compute_and_print(store, options)


def create(config: RunConfig, options: argparse.Namespace) -> RunStore:
    """Make the folder of a new run, once all its names are known."""
    store = Runs(options.runs).create(shared.check_names(config), options.title)
    tell(f"run {store.id} in {store.folder.parent}")
    return store


def compute(store: RunStore, options: argparse.Namespace | None = None) -> None:
    """Compute a run; progress goes to stderr, and a signal cancels it within one block."""
    with stop_on_signal() as stopped:
        from copal_core.experiment import loop  # torch: seconds, in which a signal may come already

        with _holders(options) as states:
            loop.run(store, tell_event, lambda: stopped() or store.cancel_requested(), states)


@contextmanager
def _holders(options: argparse.Namespace | None) -> Iterator[Any]:
    """Yield the holder of hidden states in calibration: of this process, or of workers where they are asked for."""
    from copal_core.statistics.blockwise import HiddenStates

    where = None if options is None else shared.cluster_from(options)
    if where is None:
        yield HiddenStates
        return
    from copal_core.experiment import cluster
    from copal_core.experiment.cluster.calibration import sharded

    with cluster.connected(where) as ray:
        yield sharded(ray, where)


def _compute_and_print(store: RunStore, options: argparse.Namespace) -> None:
    compute(store, options)
    print_result(store, options.json)


def _undo(options: argparse.Namespace) -> None:
    store = _open(options)
    if len(options.title) > shelf.LONGEST_TITLE:
        raise InvalidValueError(f"--title is too long; use at most {shelf.LONGEST_TITLE} characters")
    new = processes.undo(store, options.title)
    say(options, {"run": new.id, "undone_from": store.id}, f"run {new.id} has {', '.join(new.domains)}")


def _cancel(options: argparse.Namespace) -> None:
    store = _open(options)
    processes.cancel(store)
    text = f"run {store.id} is not being computed; there is nothing to cancel"
    if store.is_locked():
        text = f"run {store.id} was asked to stop; it does so within one block"
    say(options, {"run": store.id, "cancel": "requested"}, text)


# -- results and plans ---------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> None:
    if options.run is not None:
        print_result(_open(options), options.json)
        return
    rows = [
        {
            "run": run.id,
            "status": run.status,
            "checkpoint": run.checkpoint,
            "domains": list(run.domains),
            "title": run.title,
        }
        for run in Runs(options.runs).list()
    ]
    print_rows(rows, options.json)


def print_result(store: RunStore, as_json: bool) -> None:
    """Print the run's result as one JSON object, or as tables of perplexity and of forgetting."""
    from copal_core.analysis.results import result_of

    result = result_of(store)
    if as_json:
        print_json(result)
        return
    names = store.domains
    print(
        f"{store.id}: {store.state().status}\n{store.protocol_stamp()}\nperplexity, lower is better; rows: after step"
    )
    width = max((len(method["method"]) for method in result["methods"]), default=0)
    print(f"{'':{width + 6}}" + heads(names))
    print(f"{'dense':{width + 6}}" + cells([result["dense"].get(name) for name in names]))
    for method in result["methods"]:
        for step, row in enumerate(method["perplexity"], start=1):
            print(f"{method['method']:{width}} {step:>4} " + cells(row))
    print(
        "\nBWT (backward transfer), lower is better: 0 is nothing forgotten, below 0 earlier domains improved"
    )
    print(f"{'':{width + 6}}{heads(['BWT', 'average'])}  stasis")
    for method in result["methods"]:
        stasis = ", ".join(f"{value:.3f}" for value in method["stasis"]) or "-"
        print(
            f"{method['method']:{width + 6}}{cells([method['bwt'], method['average_perplexity']])}  {stasis}"
        )


def print_plan(config: RunConfig, as_json: bool) -> None:
    """Print the minutes, memory and disk that `config` would take, and what stays in memory or visits it.

    A checkpoint that is not on this machine yet is fetched or converted first.
    """
    from copal_core.checkpoints import locate
    from copal_core.experiment import preflight
    from copal_core.experiment.memory_plan import gigabytes

    protocol = config.protocol
    checkpoint = locate(config.checkpoint, lambda label, done, total: tell(label))
    described = checkpoint.describe(protocol.device, protocol.dtype)
    found = preflight.estimate(config, described)
    if as_json:
        smaller = found.smaller.protocol.model_dump(mode="json") if found.smaller else None
        shown = {**asdict(found), "smaller": smaller, "fits": found.fits, "lines": found.plan.lines()}
        described_as = {name: getattr(described, name) for name in ("device", "dtype", "dtype_reason")}
        print_json({**shown, **described_as})
        return
    print(f"time     about {max(1, round(found.minutes))} min")
    print(f"memory   {gigabytes(found.memory_bytes)} of {gigabytes(found.memory_free)} that are free")
    print(f"disk     {gigabytes(found.disk_bytes)} of {gigabytes(found.disk_free)} that are free")
    for line in (*found.plan.lines(), *found.problems):
        print(line)


# -- the shelf -----------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> None:
    root = Runs(options.runs)
    chosen = matching(
        root.list(), options.status, options.checkpoint, options.domain, options.method, options.text
    )
    rows = [{**_row(run), "bytes": shelf.disk_use([root.open(run.id).folder])} for run in chosen]
    total = shelf.disk_use([root.root])
    lines = [
        f"{row['run']}  {row['status']:11}  {row['bytes'] / 2**20:>7.1f} MiB  "
        f"{row['title'] or ', '.join(row['domains'])}"
        for row in rows
    ]
    lines.append(f"{several(len(rows), 'run')}; {total / 2**20:.1f} MiB in {root.root}")
    say(options, {"runs": rows, "bytes": total}, "\n".join(lines))


def _row(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.id,
        "status": run.status,
        "title": run.title,
        "note": run.note,
        "created": run.created,
        "checkpoint": run.checkpoint,
        "domains": list(run.domains),
        "methods": list(run.methods),
        "group": run.group,
        "recorded": run.recorded,
    }


def _rename(options: argparse.Namespace) -> None:
    store = _open(options)
    shelf.rename(store, options.title)
    title = store.info["title"]
    say(options, {"run": store.id, "title": title}, f"{store.id}: {title}")


def _note(options: argparse.Namespace) -> None:
    store = _open(options)
    shelf.note(store, options.text)
    say(options, {"run": store.id, "note": store.info["note"]}, f"{store.id}: noted")


def _delete(options: argparse.Namespace) -> None:
    store = _open(options)
    shelf.delete(store)
    say(options, {"run": store.id, "deleted": True}, f"{store.id} is in the trash; `restore` takes it back")


def _restore(options: argparse.Namespace) -> None:
    store = shelf.restore(Runs(options.runs).root, options.run)
    say(options, {"run": store.id, "restored": True}, f"{store.id} is back")


def _trash(options: argparse.Namespace) -> None:
    root = Runs(options.runs).root
    runs = shelf.trashed(root)
    if options.empty:
        freed = shelf.empty_trash(root)
        text = f"{len(runs)} runs deleted, {freed / 2**20:.1f} MiB freed"
        say(options, {"deleted": len(runs), "bytes": freed}, text)
        return
    lines = "\n".join(f"{run.id}  {run.title}" for run in runs) or "the trash is empty"
    say(options, {"runs": [_row(run) for run in runs]}, lines)
