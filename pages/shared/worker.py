"""Work that would import torch or take long, as a process of its own: `python -m pages.shared.worker`.

The last argument is a JSON list. Each line on stdout is one JSON object: progress, an error for people, or the result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.config import Protocol, Windows
from copal_core.errors import CopalError
from copal_core.system import queueing

_SHOWN_WINDOWS = 8
_SHOWN_CHARACTERS = 6000


def prepare(name: str) -> dict[str, Any]:
    """Find a checkpoint, converting or downloading it when that is needed."""
    from copal_core.checkpoints import locate

    checkpoint = locate(name, _report)
    return {"name": checkpoint.name, "folder": str(checkpoint.folder), "revision": checkpoint.revision}


def preview(checkpoint: str, spec: str, calibration: str, evaluation: str, seed: int) -> dict[str, Any]:
    """Draw a domain's windows and return the first of them as text."""
    from copal_core.checkpoints import locate
    from copal_core.domains import draw, find

    _report("Reading the checkpoint's tokenizer", 0, 0)
    tokenizer = locate(checkpoint, _report).tokenizer()
    sample = draw(find(spec), tokenizer, Windows.parse(calibration), Windows.parse(evaluation), seed, _report)
    return {
        "calibration": _texts(sample.calibration_text, len(sample.calibration)),
        "evaluation": _texts(sample.evaluation_text, len(sample.evaluation)),
        "documents": sample.documents,
        "notes": list(sample.notes),
    }


def gather(checkpoint: str, domains: str, protocol: str) -> dict[str, Any]:
    """Gather the statistics of every layer. domains: a JSON list; protocol: JSON as pydantic writes it."""
    from copal_core.statistics import prepared

    entry = prepared.gather(*_setting(checkpoint, domains, protocol), _report)
    return {"domains": entry.domains}


def compare(checkpoint: str, domains: str, protocol: str) -> dict[str, Any]:
    """Every layer's errors over the budgets; its statistics must be there, or are gathered."""
    from copal_core.analysis.layers.preferences import compare_layers
    from copal_core.statistics import prepared

    setting = _setting(checkpoint, domains, protocol)
    compare_layers(prepared.find(*setting) or prepared.gather(*setting, _report), _report)
    return {}


def diagnose(question: str, request: str) -> dict[str, Any]:
    """What the Diagnose page asks. request: the name of a file of that page's, as texts are too long for arguments."""
    from pages.shared import diagnose_work

    return diagnose_work.answer(question, request, _report)


def redundancy(run: str, domain: int, block: int) -> dict[str, Any]:
    """What the neurons of one block of a run's checkpoint share; read back with `analysis.redundancy.find`."""
    from copal_core.analysis.redundancy import look
    from copal_core.store.runs import Runs

    look(Runs().open(run), domain, block, _report)
    return {}


def measure_smaller(run: str, method: str, step: int) -> dict[str, Any]:
    """Tokens a second of the model without its removed neurons, or with its factors, and of the dense one."""
    from copal_core.export import smaller
    from copal_core.store.runs import Runs

    _report("Measuring the dense and the smaller model", 0, 0)
    return dict(smaller.measure_smaller(Runs().open(run), method, step))


def _setting(checkpoint: str, domains: str, protocol: str) -> tuple[Any, list[str], Protocol]:
    from copal_core.checkpoints import locate

    return locate(checkpoint, _report), json.loads(domains), Protocol(**json.loads(protocol))


def take_out(kind: str, run: str, out: str, method: str, step: int, form: str) -> dict[str, Any]:
    """Write one file, or a checkpoint's folder, of a run; see pages/shared/report_tasks.py."""
    from pages.shared import report_tasks

    return report_tasks.write(kind, run, Path(out), method, step, form, _report)


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "preview": preview,
    "gather": gather,
    "compare": compare,
    "take_out": take_out,
    "redundancy": redundancy,
    "measure_smaller": measure_smaller,
    "diagnose": diagnose,
}


def _texts(text_of: Callable[[int], str], windows: int) -> list[str]:
    return [text_of(index)[:_SHOWN_CHARACTERS] for index in range(min(windows, _SHOWN_WINDOWS))]


def _report(label: str, done: int, total: int) -> None:
    _say({"label": label, "done": done, "total": total})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main(arguments: list[Any]) -> int:
    command, *values = arguments
    try:
        queueing.wait(lambda words: _report(words, 0, 0))
        _say({"result": COMMANDS[command](*values)})
    except CopalError as error:
        _say({"error": str(error)})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[-1])))
