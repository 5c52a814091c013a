"""The command line: everything the app can do. See `python -m copal_core --help`.

Exit status: 0 done, 1 a defect, 2 bad input (one line on stderr), 3 cancelled.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from copal_core.cli import app, diagnose, export, groups, lists, lowrank, neurons, runs
from copal_core.cli.output import tell
from copal_core.errors import Cancelled, CopalError, InvalidValueError

FAMILIES = (lists, runs, app, lowrank, neurons, diagnose, groups, export)  # in the order of --help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check_text(options)
        return int(options.command(options) or 0)
    except KeyboardInterrupt:  # where a run computes, the signal is caught and the run's state written
        tell("cancelled")
        return 3
    except Cancelled as cancelled:
        tell(str(cancelled))
        return 3
    except CopalError as error:
        tell(f"copal: {error}")
        return 2
    except BrokenPipeError:
        return 0


def _check_text(options: argparse.Namespace) -> None:
    """Refuse arguments whose bytes are not UTF-8: what a run keeps of them could not be written."""
    for name, value in vars(options).items():
        for text in map(str, value if isinstance(value, list) else [value]):
            if not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8"):
                shown = text.encode("utf-8", "replace").decode("utf-8")
                raise InvalidValueError(f"--{name.replace('_', '-')} '{shown}' is not UTF-8; rename it")


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; --help tells the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"copal: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="copal", description="Continual pruning of LLaMA checkpoints, measured.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, summary: str, json: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=function)
        if json:
            words = "print one JSON object on stdout and nothing else"
            added.add_argument("--json", action="store_true", help=words)
        return added

    for family in FAMILIES:
        family.add_commands(command)
    return parser
