"""The commands `attribute` and `inspect`: where a run forgot, and what in it deserves a second look."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.errors import InvalidValueError
from copal_core.runs import Runs
from copal_core.store import RunState, RunStore

AddCommand = Callable[[str, Any, str], argparse.ArgumentParser]


def add_commands(command: AddCommand) -> None:
    """Add the commands to the parser through `command(name, function, summary)`."""
    attribute = command(
        "attribute", _attribute, "Restore earlier weights part by part and measure what that returns."
    )
    _add_run(attribute)
    attribute.add_argument("--method", required=True)
    attribute.add_argument(
        "--domain", required=True, help="the forgotten one: its name, or its number from 1"
    )
    attribute.add_argument("--by", default="block", help="block, projection or layer")
    attribute.add_argument(
        "--windows", type=int, default=None, help="of the evaluation windows; default: all"
    )
    attribute.add_argument("--again", action="store_true", help="forget what was measured before")


def _add_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("run")
    made.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")


def _attribute(options: argparse.Namespace) -> int:
    from copal_core.diagnosis.attributing import compute
    from copal_core.diagnosis.attributions import Attribution, request_for

    store = Runs(options.runs).open(options.run)
    domain = _domain_number(store, options.domain)
    attribution = Attribution(store, request_for(store, options.method, domain, options.by, options.windows))
    if options.again:
        (attribution.folder / "tally.json").unlink(missing_ok=True)
    if attribution.state().status != "created":  # a request to cancel a process that starts just now stays
        attribution.clear_cancel()
    stopped = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal stopped
        stopped = True

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        compute(attribution, _tell(options.json), lambda: stopped or attribution.cancel_requested())
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    result = attribution.result()
    print(json.dumps(result, ensure_ascii=False)) if options.json else _print_ranking(result)
    return 0


def _domain_number(store: RunStore, text: str) -> int:
    """A domain by its name or its number. Raises InvalidValueError for one that is not in the run."""
    names = store.domains
    if text in names:
        return names.index(text) + 1
    if text.isdecimal() and 1 <= int(text[:6]) <= len(names):
        return int(text)
    raise InvalidValueError(f"domain '{text}' is not in the run; its domains: {', '.join(names)}")


def _tell(quiet: bool) -> Callable[[RunState], None]:
    """One line on stderr whenever the phase changes, and each tenth of the way."""
    said: set[str] = set()

    def tell(state: RunState) -> None:
        line = f"{int(10 * state.progress) * 10:3d} %  {state.phase}"
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    return tell


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
