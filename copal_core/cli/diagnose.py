"""The commands `attribute`, `losses`, `inspect` and `health`: where a run forgot, what a text and a weight cost it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from copal_core.analysis.diagnosis.evidence import Place
from copal_core.analysis.diagnosis.kept import Result
from copal_core.cli.options import AddCommand, with_run
from copal_core.cli.output import print_json, tell, tell_step
from copal_core.cli.signals import stop_on_signal
from copal_core.errors import InvalidValueError
from copal_core.store.folder import RunState
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser."""
    attribute = command(
        "attribute", _attribute, "Restore earlier weights part by part and measure what that returns."
    )
    with_run(attribute)
    attribute.add_argument("--method", required=True)
    attribute.add_argument(
        "--domain", required=True, help="the forgotten one: its name, or its number from 1"
    )
    attribute.add_argument("--by", default="block", help="block, projection or layer")
    attribute.add_argument(
        "--windows", type=int, default=None, help="of the evaluation windows; default: all"
    )
    attribute.add_argument("--again", action="store_true", help="forget what was measured before")

    losses = command(
        "losses", _losses, "Loss of every token of a text, in the dense model and in results of a run."
    )
    with_run(losses)
    losses.add_argument(
        "--model", action="append", required=True, metavar="METHOD@STEP", help="once for each"
    )
    losses.add_argument(
        "--text", type=Path, required=True, metavar="FILE", help="the first 2,000 tokens of it"
    )

    inspect = command(
        "inspect", _inspect, "One weight: its value after every step, and how close it is to going."
    )
    with_run(inspect)
    inspect.add_argument("--block", type=int, required=True)
    inspect.add_argument("--projection", required=True)
    inspect.add_argument("--row", type=int, required=True, help="output neuron, from 0")
    inspect.add_argument("--column", type=int, required=True, help="input feature, from 0")
    words = "What in a run deserves a second look, with its place and what to do."
    with_run(command("health", _health, words))


def _attribute(options: argparse.Namespace) -> None:
    from copal_core.analysis.diagnosis.attribution_folder import Attribution, request_for
    from copal_core.analysis.diagnosis.attribution_job import compute

    store = Runs(options.runs).open(options.run)
    domain = _domain_number(store, options.domain)
    attribution = Attribution(store, request_for(store, options.method, domain, options.by, options.windows))
    if options.again:
        (attribution.folder / "tally.json").unlink(missing_ok=True)
    attribution.forget_old_cancel()
    with stop_on_signal() as stopped:
        compute(attribution, _teller(), lambda: stopped() or attribution.cancel_requested())
    result = attribution.result()
    print_json(result) if options.json else _print_ranking(result)


def _domain_number(store: RunStore, text: str) -> int:
    """Return a domain's number, given that or its name. Raises InvalidValueError for one that is not in the run."""
    names = store.domains
    if text in names:
        return names.index(text) + 1
    if text.isdecimal() and 1 <= int(text[:6]) <= len(names):
        return int(text)
    raise InvalidValueError(f"domain '{text}' is not in the run; its domains: {', '.join(names)}")


def _teller() -> Callable[[RunState], None]:
    """Return a function that prints a line whenever the phase changes, and each tenth of the way."""
    said: set[str] = set()

    def tell_state(state: RunState) -> None:
        line = f"{int(10 * state.progress) * 10:3d} %  {state.phase}"
        if line not in said:
            said.add(line)
            tell(line)

    return tell_state


def _print_ranking(result: dict[str, Any]) -> None:
    means = result["mean_nats"]
    print(
        f"{result['method']} forgot {result['forgotten_nats']:+.4f} nats a token on {result['domain']}: "
        f"{means['earlier']:.4f} after step {result['restored_step']}, {means['final']:.4f} after step "
        f"{result['final_step']}\n{result['protocol']} · {result['windows']} windows measured"
    )
    print(f"{'restored':26}{'returned, nats':>16}{'± error':>12}{'share':>9}{'windows':>9}")
    for part in result["parts"]:
        share = "-" if part["share"] is None else f"{part['share']:.1%}"
        print(f"{part['part']:26}{part['nats']:>+16.5f}{part['error']:>12.5f}{share:>9}{part['windows']:>9}")


def _losses(options: argparse.Namespace) -> None:
    from copal_core.analysis.diagnosis.comparing import Typed, compare_losses
    from copal_core.analysis.diagnosis.pieces import MOST_CHARACTERS

    store = Runs(options.runs).open(options.run)
    results = [(store, _result(text)) for text in options.model]
    text = Typed(*_beginning(options.text, MOST_CHARACTERS))
    losses = compare_losses(results, text, lambda label, done, total: None)
    if losses["cut"]:
        tell(losses["cut"])
    if options.json:
        print_json({"run": store.id, **{name: losses[name] for name in ("models", "cut", "pieces")}})
        return
    print("nats  " + "  ".join(losses["models"]))
    for piece, *values in losses["pieces"]:
        cells = "".join(f"{'-' if value is None else format(value, '.3f'):>10}" for value in values)
        print(f"{cells}  {json.dumps(piece, ensure_ascii=True)}")


def _result(text: str) -> Result:
    """Read METHOD@STEP. Raises InvalidValueError for anything else."""
    method, at, step = text.rpartition("@")
    if not at or not step.isdecimal():
        raise InvalidValueError(
            f"model '{text[:80]}' is not of the form METHOD@STEP, such as wanda:restart@3"
        )
    return Result(method, int(step[:9]))


def _beginning(path: Path, characters: int) -> tuple[str, int]:
    """Return a file's first characters, and about how many it has. Raises InvalidValueError when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(characters)
            return text, max(len(text) + 1, path.stat().st_size) if file.read(1) else len(text)
    except OSError as error:
        raise InvalidValueError(
            f"text '{path}' cannot be read ({error.strerror}); name a text file"
        ) from None


def _inspect(options: argparse.Namespace) -> None:
    from copal_core.analysis.diagnosis.layers import read_layer
    from copal_core.methods.criteria import CRITERIA

    store = Runs(options.runs).open(options.run)
    place, row, column = Place(options.block, options.projection), options.row, options.column
    _check_place(store, place, row, column)
    evidence = read_layer(store, place, row, tell_step)
    after: list[dict[str, Any]] = [
        {"method": one.method, "step": one.step, "value": evidence.after(number, row, column)}
        for number, one in enumerate(evidence.results)
    ]
    standings: list[dict[str, Any]] = [
        {"criterion": criterion, "domain": domain, **asdict(standing), "margin": standing.margin}
        for criterion, domain, standing in evidence.standings(CRITERIA.names(), store, row, column)
    ]
    value = evidence.value(row, column)
    if options.json:
        print_json({"run": store.id, "value": value, "after": after, "standings": standings})
        return
    print(f"{place}, output {row}, input {column}: {value:.6g} in the dense model")
    for one in after:
        said = "no such weight" if one["value"] is None else f"{one['value']:.6g}"
        print(f"    after step {one['step']} of {one['method']:28} {said}")
    print("dense model, each domain by itself: score, threshold, rank; the lowest go")
    for one in standings:
        threshold = "-" if one["threshold"] is None else f"{one['threshold']:.4g}"
        rank = f"{one['rank']} of {one['among']}, lowest {one['removed']} go"
        print(f"    {one['criterion']:12}{one['domain'][:20]:22}{one['score']:<12.4g}{threshold:12}{rank}")


def _check_place(store: RunStore, place: Place, row: int, column: int) -> None:
    """Raise InvalidValueError for a weight that the checkpoint does not have."""
    described = store.info.get("checkpoint", {})
    shapes, blocks = described.get("projections", {}), int(described.get("blocks", 0))
    if place.projection not in shapes or not 0 <= place.block < blocks:
        raise InvalidValueError(
            f"layer '{place}' is not in the run; blocks 0 to {blocks - 1}, projections: {', '.join(shapes)}"
        )
    rows, columns = shapes[place.projection]
    if not (0 <= row < rows and 0 <= column < columns):
        raise InvalidValueError(
            f"weight {row}, {column} is not in {place}; rows 0 to {rows - 1}, columns 0 to {columns - 1}"
        )


def _health(options: argparse.Namespace) -> None:
    from copal_core.analysis.diagnosis.health import CHECKS, examine

    store = Runs(options.runs).open(options.run)
    found = examine(store)
    if options.json:
        content = {name: [asdict(one) for one in findings] for name, findings in found.items()}
        print_json({"run": store.id, "checks": content})
        return
    for check in CHECKS:
        print(f"{check.label}: {len(found[check.name]) or 'nothing found'}")
        for one in found[check.name]:
            print(f"    {one.where}\n        {one.found}\n        {one.advice}")
