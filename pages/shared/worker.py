"""Work that would import torch or take long, as a process of its own: `python -m pages.shared.worker`.

Stdin is a JSON list, the task's name and its arguments; texts that people paste would be too long for a command line.
Each line on stdout is one JSON object: progress, an error for people, or the result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from copal_core.analysis.diagnosis.evidence import Place
from copal_core.analysis.diagnosis.kept import Result
from copal_core.checkpoints import locate
from copal_core.config import Protocol, Windows
from copal_core.errors import CopalError
from copal_core.store.runs import Runs
from copal_core.system import queueing
from pages.shared import exports

_SHOWN_WINDOWS = 8
_SHOWN_CHARACTERS = 6000


def prepare(name: str) -> dict[str, Any]:
    """Find a checkpoint, converting or downloading it when that is needed."""
    checkpoint = locate(name, _report)
    return {"name": checkpoint.name, "folder": str(checkpoint.folder), "revision": checkpoint.revision}


def preview(checkpoint: str, spec: str, calibration: str, evaluation: str, seed: int) -> dict[str, Any]:
    """Draw a domain's windows and return the first of them as text."""
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
    """Compare every layer's errors over the budgets; statistics that are not there are gathered first."""
    from copal_core.analysis.layers.preferences import compare_layers
    from copal_core.statistics import prepared

    setting = _setting(checkpoint, domains, protocol)
    compare_layers(prepared.find(*setting) or prepared.gather(*setting, _report), _report)
    return {}


def losses(request: str) -> dict[str, Any]:
    """Measure the loss of every piece of a text in every model. request: JSON, see `pages/diagnose/texts.py`."""
    _report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.comparing import compare_losses

    return compare_losses(*_compared(json.loads(request)), _report)


def continuations(request: str) -> dict[str, Any]:
    """Continue the beginning of a text with every model. request: as for `losses`."""
    _report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.comparing import continue_text

    content = json.loads(request)
    settings = (content["prompt"], content["count"], content["temperature"], content["seed"])
    return continue_text(*_compared(content), *settings, _report)


def _compared(content: dict[str, Any]) -> tuple[Any, Any]:
    """Return the results that a request names, and its text."""
    from copal_core.analysis.diagnosis.comparing import Typed, Window

    results = [(Runs().open(run), Result(method, step)) for run, method, step in content["models"]]
    if "typed" in content:
        return results, Typed(content["typed"], content["characters"])
    run, domain, number = content["window"]
    return results, Window(Runs().open(run), domain, number)


def layer(run: str, block: int, projection: str, row: int) -> dict[str, Any]:
    """Gather everything about one layer; read back with `diagnosis.evidence.Evidence`."""
    _report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.layers import read_layer

    read_layer(Runs().open(run), Place(block, projection), row, _report)
    return {}


def decision(run: str, block: int, projection: str, row: int, method: str, step: int) -> dict[str, Any]:
    """Replay how one step decided about one layer; read back with `diagnosis.evidence.Evidence`."""
    _report("opening the checkpoint", 0, 0)
    from copal_core.analysis.diagnosis.decisions import gather_decision

    store = Runs().open(run)
    checkpoint = locate(store.config.checkpoint)
    gather_decision(store, checkpoint, Place(block, projection), Result(method, step), row, _report)
    return {}


def redundancy(run: str, domain: int, block: int) -> dict[str, Any]:
    """Measure what the neurons of one block of a run's checkpoint share; read back with `analysis.redundancy.find`."""
    from copal_core.analysis.redundancy import compute_redundancy

    compute_redundancy(Runs().open(run), domain, block, _report)
    return {}


def measure_smaller(run: str, method: str, step: int) -> dict[str, Any]:
    """Measure tokens a second of the model without its removed neurons, or with its factors, and of the dense one."""
    from copal_core.export import smaller

    _report("Measuring the dense and the smaller model", 0, 0)
    return dict(smaller.measure_smaller(Runs().open(run), method, step))


def _setting(checkpoint: str, domains: str, protocol: str) -> tuple[Any, list[str], Protocol]:

    return locate(checkpoint, _report), json.loads(domains), Protocol(**json.loads(protocol))


def write(kind: str, run: str, out: str, method: str, step: int, form: str) -> dict[str, Any]:
    """Write one file, or a checkpoint's folder, of a run; `exports.arguments` makes these."""
    from copal_core.export import outputs

    store = Runs().open(run)
    exports.make_room(kind, Path(out))
    _report("Writing the checkpoint" if kind == "checkpoint" else "Writing the file", 0, 0)
    return outputs.write(kind, store, Path(out), method, step, form, _report)


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "preview": preview,
    "gather": gather,
    "compare": compare,
    "write": write,
    "redundancy": redundancy,
    "measure_smaller": measure_smaller,
    "losses": losses,
    "continue": continuations,
    "layer": layer,
    "decision": decision,
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
    sys.exit(main(json.load(sys.stdin)))
