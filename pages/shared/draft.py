"""Draft of a run that is being set up, filled in by the pages Checkpoint, Domains and Prune."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import streamlit as st

from copal_core import domains
from copal_core.checkpoints import catalogue
from copal_core.config import Method, Protocol, RunConfig, Structure, Windows
from copal_core.errors import InvalidValueError
from copal_core.export.command_line import command_of
from pages.shared import links
from pages.shared.words import neuron_selectors

_KEY, _FILLED = "draft", "draft-filled-from"
_HUB = re.compile(r"hub:[\w./:#-]+\Z")
_WINDOWS = ("calibration_count", "calibration_length", "evaluation_count", "evaluation_length", "seed")
_DECIDING = (
    *_WINDOWS, "checkpoint", "domains", "strategies", "estimator", "epsilon", "neuron_share", "structure", "sparsity",
    "group", "keep", "group_size", "propagate", "dtype",
)  # fmt: skip
_DOMAINS = ("python-code", "python-manual", "shakespeare")
PRESETS = {
    "Quick": ("8x128", "8x128", "A first impression in the shortest time; figures are rough."),
    "Standard": ("16x256", "12x256", "The size used for this product's own figures."),
    "Paper": (
        "128x2048",
        "64x2048",
        "The size of published experiments. Hours on a laptop; meant for a GPU.",
    ),
}
CUSTOM = "Custom"


def values() -> dict[str, Any]:
    """Return this session's draft; the first call fills it with defaults."""
    if _KEY not in st.session_state:
        known = {checkpoint.name: checkpoint for checkpoint in catalogue()}
        linked = links.read("checkpoint")
        usable = [name for name, checkpoint in known.items() if checkpoint.available]
        st.session_state[_KEY] = {
            "checkpoint": linked if linked in usable else (usable[0] if usable else next(iter(known))),
            "domains": _linked_domains() or list(_DOMAINS),
            "strategies": {"copal": ["accumulate"], "wanda": ["restart"]},
            "estimator": "closed-form",
            "epsilon": 0.01,
            "neuron_share": 10,
            "structure": "unstructured",
            "sparsity": 50,
            "group": "row",
            "keep": 2,
            "group_size": 4,
            "preset": "Quick",
            "propagate": "pruned",
            "seed": 0,
            "dtype": "auto",
            "title": "",
        }
        take_preset("Quick")
        _take_linked_windows()
        st.session_state[_FILLED] = ("", _settings())
    return st.session_state[_KEY]


def follow(run_id: str, config: RunConfig) -> None:
    """Fill in the settings of the open run, once, unless the draft was changed since it was last filled in."""
    values()
    known, settings = st.session_state[_FILLED]
    if run_id != known and settings == _settings():
        take(run_id, config)


def take(run_id: str, config: RunConfig) -> None:
    """Fill in a run's settings, or the nearest ones that the form can express; `matches` tells the difference."""
    draft, protocol, structure = values(), config.protocol, config.structure
    chosen: dict[str, list[str]] = {}
    for method in config.methods:
        if method.strategy not in chosen.setdefault(method.name, []):
            chosen[method.name].append(method.strategy)
    options: dict[str, Any] = {}
    for method in config.methods:
        options |= method.options
    draft.update(
        checkpoint=config.checkpoint,
        domains=list(config.domains),
        strategies=chosen,
        estimator=options.get("estimator", "closed-form"),
        epsilon=options.get("epsilon", 0.01),
        neuron_share=min(90, max(1, round(100 * float(options.get("share", 0.1))))),
        structure=structure.kind,
        sparsity=min(95, round(100 * structure.sparsity)),
        group=structure.group,
        propagate=protocol.propagate,
        seed=protocol.seed,
        dtype=protocol.dtype,
    )
    if structure.kind == "n:m":
        draft.update(keep=structure.keep, group_size=structure.group_size)
    set_windows(protocol.calibration, protocol.evaluation)
    windows = str(protocol.calibration), str(protocol.evaluation)
    draft["preset"] = next((name for name, preset in PRESETS.items() if preset[:2] == windows), CUSTOM)
    for name in ("source", "bundled"):  # so that the Checkpoint page's widgets start from this checkpoint
        draft.pop(name, None)
    if config.checkpoint not in {checkpoint.name for checkpoint in catalogue()}:
        draft["source"] = "local" if Path(config.checkpoint).exists() else "hub"
        draft[f"{draft['source']}_name"] = config.checkpoint
    st.session_state[_FILLED] = (run_id, _settings())


def matches(wanted: RunConfig) -> bool:
    """Tell whether the draft has the settings of `wanted`, apart from the order of methods, device and map size."""
    try:
        own = config()
    except InvalidValueError:
        return False
    apart = {name: getattr(own.protocol, name) for name in ("device", "map_size")}
    protocol = wanted.protocol.model_copy(update=apart)
    same_methods = set(map(str, own.methods)) == set(map(str, wanted.methods))
    return same_methods and own == wanted.model_copy(update={"methods": own.methods, "protocol": protocol})


def is_as_filled(run_id: str) -> bool:
    """Tell whether the draft is unchanged since `take` filled it in from this run."""
    return st.session_state[_FILLED] == (run_id, _settings())


def _settings() -> str:
    """Return all settings that determine a run, as text: equal drafts give equal text."""
    draft = st.session_state[_KEY]
    return json.dumps({name: draft[name] for name in _DECIDING}, sort_keys=True, default=str)


def write_link() -> None:
    """Write domains and windows into the URL, so that the link shows another person the same settings.

    Uploaded and local files exist on this machine only: with one of them the link contains neither.
    """
    draft = values()
    shared = all(_is_portable(spec) for spec in draft["domains"])
    links.write("texts", " ".join(draft["domains"]) if shared else None)
    numbers = [draft[name] for name in _WINDOWS]
    links.write("windows", " ".join(map(str, numbers)) if shared and None not in numbers else None)


def _linked_domains() -> list[str]:
    specs = list(dict.fromkeys((links.read("texts") or "").split()))
    return specs if all(_is_portable(spec) for spec in specs) else []


def _take_linked_windows() -> None:
    """Read calibration count and length, evaluation count and length, and seed from the URL; ignore other forms."""
    numbers = (links.read("windows") or "").split()
    if len(numbers) != len(_WINDOWS) or not all(number.isdecimal() for number in numbers):
        return
    linked = dict(zip(_WINDOWS, map(int, numbers), strict=True))
    if all(0 < linked[name] <= 2**20 for name in _WINDOWS[:-1]) and linked["seed"] < 2**31:
        st.session_state[_KEY].update(linked, preset=CUSTOM)


def _is_portable(spec: str) -> bool:
    """Return whether a domain is the same on every machine: built in, or from the hub."""
    return spec in {domain.name for domain in domains.builtins()} or bool(_HUB.match(spec))


def take_preset(name: str) -> None:
    """Fill in the windows of a preset."""
    if name in PRESETS:
        set_windows(Windows.parse(PRESETS[name][0]), Windows.parse(PRESETS[name][1]))


def set_windows(calibration: Windows, evaluation: Windows) -> None:
    draft = st.session_state[_KEY]
    draft["calibration_count"], draft["calibration_length"] = calibration.count, calibration.length
    draft["evaluation_count"], draft["evaluation_length"] = evaluation.count, evaluation.length


def widget(name: str, change: Any = None) -> dict[str, Any]:
    """Return arguments that bind a widget to a value of the draft, so that it survives a change of page.

    Args:
        name: of the value.
        change: called with the new value after the draft has been updated.
    """
    key = f"draft-{name}"
    st.session_state[key] = values()[name]

    def follow() -> None:
        values()[name] = st.session_state[key]
        if change is not None:
            change(st.session_state[key])

    return {"key": key, "on_change": follow}


def protocol() -> Protocol:
    """Return the protocol of the draft. Raises InvalidValueError if a field is missing or breaks a rule."""
    draft = values()
    for name in _WINDOWS:
        if draft[name] is None:
            raise InvalidValueError(f"{name.replace('_', ' ')} is empty; enter a whole number")
    return Protocol(
        calibration=Windows(count=draft["calibration_count"], length=draft["calibration_length"]),
        evaluation=Windows(count=draft["evaluation_count"], length=draft["evaluation_length"]),
        propagate=draft["propagate"],
        seed=draft["seed"],
        dtype=draft["dtype"],
    )


def methods() -> list[Method]:
    """Return every chosen criterion with each strategy chosen for it."""
    draft = values()
    options: dict[str, Any] = {}
    if draft["estimator"] != "closed-form":
        options = {"estimator": draft["estimator"], "epsilon": float(draft["epsilon"] or 0.01)}
    by_name = {"copal": options} | dict.fromkeys(neuron_selectors(), {"share": draft["neuron_share"] / 100})
    return [
        Method(name=name, strategy=strategy, options=by_name.get(name, {}))
        for name, strategies in draft["strategies"].items()
        for strategy in strategies
    ]


def structure() -> Structure:
    draft = values()
    if draft["structure"] == "n:m":
        return Structure.parse(f"{draft['keep']}:{draft['group_size']}")
    return Structure(sparsity=draft["sparsity"] / 100, group=draft["group"])


def config() -> RunConfig:
    """Return the configuration of the draft. Raises InvalidValueError if something is missing or invalid."""
    draft = values()
    if not draft["domains"]:
        raise InvalidValueError("there is no domain; add at least one on the Domains page")
    if not methods():
        raise InvalidValueError("no method is chosen; choose at least one strategy for one criterion")
    return RunConfig(
        checkpoint=draft["checkpoint"],
        domains=tuple(draft["domains"]),
        methods=tuple(methods()),
        structure=structure(),
        protocol=protocol(),
    )


def command_line(chosen: RunConfig) -> str:
    """Return the command that starts the same run."""
    return command_of(chosen)
