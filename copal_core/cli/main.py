"""The command line: everything the app can do. See `python -m copal_core --help`.

Exit status: 0 done, 1 a defect, 2 bad input (one line on stderr), 3 cancelled.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from copal_core.cli import diagnose, groups, report, runs, sweep
from copal_core.cli.app import add_options as add_app_options
from copal_core.cli.app import open_app
from copal_core.cli.lists import list_checkpoints, list_domains, list_methods, print_rows
from copal_core.cli.lowrank import add_commands
from copal_core.cli.neurons import add_neurons
from copal_core.cli.plan import print_plan
from copal_core.cli.signals import stop_on_signal
from copal_core.config import Method, Protocol, RunConfig, Structure, Windows
from copal_core.errors import Cancelled, CopalError, InvalidValueError
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check_text(options)
        return int(options.command(options) or 0)
    except KeyboardInterrupt:  # where a run computes, the signal is caught and the run's state written
        print("cancelled", file=sys.stderr)
        return 3
    except Cancelled as cancelled:
        print(cancelled, file=sys.stderr)
        return 3
    except CopalError as error:
        print(f"copal: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0


# -- commands ------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    config = RunConfig(
        checkpoint=options.checkpoint,
        domains=tuple(options.domain),
        methods=tuple(Method.parse(text) for text in options.method),
        structure=Structure.parse(options.structure, options.sparsity, options.group),
        protocol=Protocol(
            calibration=Windows.parse(options.calibration),
            evaluation=Windows.parse(options.evaluation),
            propagate=options.propagate,
            seed=options.seed,
            dtype=options.dtype,
            device=options.device,
            map_size=options.map_size,
        ),
        steps=options.steps,
    )
    if options.plan:
        print_plan(check_names(config), options.json)
        return 0
    return _compute(create(config, options), options)


def _resume(options: argparse.Namespace) -> int:
    store = Runs(options.runs).open(options.run)
    if not store.recorded:
        store.forget_old_cancel()
        return _compute(store, options)
    raise CopalError(f"run '{store.id}' is a recorded run; it is finished")


def _show(options: argparse.Namespace) -> None:
    if options.run is None:
        rows = [
            {
                "run": s.id,
                "status": s.status,
                "checkpoint": s.checkpoint,
                "domains": list(s.domains),
                "title": s.title,
            }
            for s in Runs(options.runs).list()
        ]
        print_rows(rows, options.json)
        return
    store = Runs(options.runs).open(options.run)
    print_result(store, options.json)


def _cancel(options: argparse.Namespace) -> None:
    from copal_core.experiment import processes

    store = Runs(options.runs).open(options.run)
    processes.cancel(store)
    if options.json:
        print(json.dumps({"run": store.id, "cancel": "requested"}))
    elif store.is_locked():
        print(f"run {store.id} was asked to stop; it does so within one block")
    else:
        print(f"run {store.id} is not being computed; there is nothing to cancel")


def _branch(options: argparse.Namespace) -> int:
    from copal_core.domains import find
    from copal_core.experiment import processes

    domain = find(options.domain).spec  # refuses an unknown one before a run's folder is made
    store = processes.branch(Runs(options.runs).open(options.run), options.step, domain)
    print(f"run {store.id} in {store.folder.parent}", file=sys.stderr)
    return _compute(store, options)


# -- helpers -------------------------------------------------------------------------------------------


def _check_text(options: argparse.Namespace) -> None:
    """Refuse arguments whose bytes are not UTF-8: what a run keeps of them could not be written."""
    for name, value in vars(options).items():
        for text in map(str, value if isinstance(value, list) else [value]):
            if not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8"):
                shown = text.encode("utf-8", "replace").decode("utf-8")
                raise InvalidValueError(f"--{name.replace('_', '-')} '{shown}' is not UTF-8; rename it")


def create(config: RunConfig, options: argparse.Namespace) -> RunStore:
    """The folder of a new run, once all its names are known."""
    store = Runs(options.runs).create(check_names(config), options.title)
    print(f"run {store.id} in {store.folder.parent}", file=sys.stderr)
    return store


def check_names(config: RunConfig) -> RunConfig:
    """Refuse unknown domains, methods and options, and files far too short, before a run's folder is made.

    Returns the configuration as it means the same from any folder: files by their absolute paths.
    """
    from copal_core.domains import resolve_specs
    from copal_core.methods.build import build_methods

    domains = resolve_specs(config.domains, config.protocol.calibration, config.protocol.evaluation)
    build_methods(config)
    return RunConfig(**{**dict(config), "domains": domains})


def _compute(store: RunStore, options: argparse.Namespace) -> int:
    compute(store, options)
    print_result(store, options.json)
    return 0


def compute(store: RunStore, options: argparse.Namespace | None = None) -> None:
    """Compute a run; progress goes to stderr, and a signal cancels it within one block."""
    with stop_on_signal() as stopped:
        from copal_core.experiment import loop  # torch: seconds, in which a signal may come already

        with sweep.holders(options) as states:
            loop.run(store, _tell, lambda: stopped() or store.cancel_requested(), states)


def _tell(event: dict[str, Any]) -> None:
    """One line of progress on stderr."""
    share = f"{event.get('progress', 0):4.0%}"
    if event["event"] == "block":
        print(
            f"{share}  step {event['step']}  {event['method']}  block {event['block'] + 1}", file=sys.stderr
        )
    elif event["event"] == "trained":
        print(f"{share}  step {event['step']}  {event['method']}  {event['message']}", file=sys.stderr)
    elif event["event"] == "repair":
        print(f"{share}  {event['message']}: computed again from there", file=sys.stderr)
    elif event["event"] == "evaluated":
        found = "  ".join(f"{name} {value:.2f}" for name, value in event["perplexity"].items())
        print(f"{share}  step {event['step']}  {event['method']}  perplexity: {found}", file=sys.stderr)


def print_result(store: RunStore, as_json: bool) -> None:
    """The run's result as one JSON object, or as a table."""
    from copal_core.analysis.results import result_of

    result = result_of(store)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    names = store.domains
    print(
        f"{store.id}: {store.state().status}\n{store.protocol_stamp()}\nperplexity, lower is better; rows: after step"
    )
    width = max((len(method["method"]) for method in result["methods"]), default=0)
    print(f"{'':{width + 6}}" + "".join(f"{name[:14]:>16}" for name in names))
    print(f"{'dense':{width + 6}}" + "".join(_cell(result["dense"].get(name)) for name in names))
    for method in result["methods"]:
        for step, row in enumerate(method["perplexity"], start=1):
            print(f"{method['method']:{width}} {step:>4} " + "".join(_cell(value) for value in row))
    print(
        "\nBWT (backward transfer), lower is better: 0 is nothing forgotten, below 0 earlier domains improved"
    )
    print(f"{'':{width + 6}}{'BWT':>16}{'average':>16}  stasis")
    for method in result["methods"]:
        stasis = ", ".join(f"{value:.3f}" for value in method["stasis"]) or "-"
        print(
            f"{method['method']:{width + 6}}{_cell(method['bwt'])}{_cell(method['average_perplexity'])}  {stasis}"
        )


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>16}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; --help tells the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"copal: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="copal", description="Continual pruning of LLaMA checkpoints, measured.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(command=function)
        made.add_argument(
            "--json", action="store_true", help="print one JSON object on stdout and nothing else"
        )
        return made

    def with_runs(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")
        return made

    command("checkpoints", list_checkpoints, "List the checkpoints that work without a download.")
    command("domains", list_domains, "List the built-in text domains and the hub presets.")
    command("methods", list_methods, "List criteria, decompositions, neuron selectors and strategies.")
    run = with_runs(command("run", _run, "Prune for a sequence of domains and measure each step."))
    _add_run_options(run)
    sweep.add_workers(run)
    show = with_runs(command("show", _show, "Print a run's result, or list the runs."))
    show.add_argument("run", nargs="?", default=None)
    resume = with_runs(command("resume", _resume, "Go on with a run that was stopped."))
    resume.add_argument("run")
    sweep.add_workers(resume)
    with_runs(command("cancel", _cancel, "Stop a run within one block.")).add_argument("run")
    branch = with_runs(command("branch", _branch, "Same past up to a step, another domain next."))
    branch.add_argument("run")
    branch.add_argument("--step", type=int, required=True)
    branch.add_argument("--domain", required=True)
    made = commands.add_parser("app", help="Open the app in the browser, on this machine only.")
    made.set_defaults(command=open_app)
    add_app_options(made)
    add_commands(command)
    add_neurons(command)
    diagnose.add_commands(command)
    runs.add_commands(command)
    groups.add_commands(command)
    sweep.add_commands(command)
    report.add_commands(command, compute)
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--checkpoint", default="smollm2-135m", help="name, hub id, folder or GGUF file")
    run.add_argument(
        "--domain",
        action="append",
        required=True,
        help="once each, in order: name, file#column, hub:owner/name",
    )
    run.add_argument("--method", action="append", required=True, help="CRITERION:STRATEGY, once for each")
    run.add_argument(
        "--structure", default="unstructured", help="unstructured, or N:M = keep N of each M inputs"
    )
    run.add_argument("--sparsity", type=float, help="share removed where unstructured; default: 0.5")
    run.add_argument(
        "--group", choices=["row", "layer"], help="compared within, where unstructured; default: row"
    )
    run.add_argument("--calibration", default="16x256", metavar="COUNTxLENGTH")
    run.add_argument("--evaluation", default="12x256", metavar="COUNTxLENGTH")
    run.add_argument("--propagate", default="pruned", choices=["pruned", "dense"])
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    run.add_argument("--device", default="auto")
    run.add_argument(
        "--steps",
        choices=["all", "last"],
        default="all",
        help="last: only that of the last domain; joint, restart",
    )
    run.add_argument("--map-size", type=int, default=64, help="side of the pooled heatmap tiles")
    run.add_argument("--title", default="")
    run.add_argument("--plan", action="store_true", help="say what it would take, and compute nothing")
