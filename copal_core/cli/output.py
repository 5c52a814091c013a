"""Printing: JSON or text on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# -- results, on stdout --------------------------------------------------------------------------------


def print_json(content: Any) -> None:
    """Print one JSON value on a line of its own."""
    print(json.dumps(content, ensure_ascii=False))


def say(options: argparse.Namespace, content: Any, text: str) -> None:
    """Print `content` where --json was given, else `text`."""
    print_json(content) if options.json else print(text)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as one JSON list, or each row's values on a line."""
    if as_json:
        print_json(rows)
        return
    for row in rows:
        values = [", ".join(value) if isinstance(value, list) else value for value in row.values()]
        print("  ".join(str(value) for value in values if value not in ("", None, True)))


def cells(values: Sequence[float | None]) -> str:
    """Return numbers as columns of 16 characters, '-' for one that is not known."""
    return "".join(f"{'-' if value is None else format(value, '.2f'):>16}" for value in values)


def heads(names: Sequence[str]) -> str:
    """Return the titles of the columns that `cells` fills, cut to 14 characters."""
    return "".join(f"{name[:14]:>16}" for name in names)


# -- progress, on stderr -------------------------------------------------------------------------------


def tell(text: str) -> None:
    """Print a line for people, which no program reads."""
    print(text, file=sys.stderr)


def tell_step(label: str, done: int, total: int) -> None:
    """Print how far something of `total` parts is; total 0: nobody knows."""
    tell(f"{label} {done}/{total}" if total else label)


def tell_event(event: dict[str, Any]) -> None:
    """Print one line of a run's progress."""
    share = f"{event.get('progress', 0):4.0%}"
    if event["event"] == "block":
        tell(f"{share}  step {event['step']}  {event['method']}  block {event['block'] + 1}")
    elif event["event"] == "trained":
        tell(f"{share}  step {event['step']}  {event['method']}  {event['message']}")
    elif event["event"] == "repair":
        tell(f"{share}  {event['message']}: computed again from there")
    elif event["event"] == "evaluated":
        tell(f"{share}  step {event['step']}  {event['method']}  {perplexities(event['perplexity'])}")


def perplexities(by_domain: Mapping[str, float | None]) -> str:
    """Return 'perplexity: ' and every domain's."""
    known = (f"{name} {'-' if value is None else format(value, '.2f')}" for name, value in by_domain.items())
    return f"perplexity: {'  '.join(known)}"
