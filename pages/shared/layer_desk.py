"""The layers that the low-rank page looks at: which checkpoint and texts, their statistics, one layer's curves.

Statistics are gathered once by a worker process. Curves are computed in the server from what it left, and kept
by checkpoint, texts, layer and device; torch is imported by the first of them, never before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from copal_core.checkpoints import catalogue
from copal_core.config import Protocol
from copal_core.errors import CopalError
from copal_core.figures import lowrank
from copal_core.figures.numbers import duration, size
from copal_core.statistics import prepared
from pages.shared import checkpoints, draft, links, tasks
from pages.shared.domain_names import label_of
from pages.shared.text import plain
from pages.shared.words import GLOSSARY

if TYPE_CHECKING:
    from copal_core.analysis.layers.close_up import CloseUp
    from copal_core.analysis.layers.curves import LayerCurves

FIRST = "tiny"  # ready within seconds
_CURVES_KEPT, _CLOSE_UPS_KEPT = 48, 3


@dataclass(frozen=True)
class Setting:
    """The subject of the page: a checkpoint's name, domains in order, and how their windows are drawn."""

    checkpoint: str
    domains: tuple[str, ...]
    protocol: Protocol

    def task(self, command: str) -> tuple[str, ...]:
        """Arguments of the worker."""
        return command, self.checkpoint, json.dumps(self.domains), self.protocol.model_dump_json()


@dataclass(frozen=True)
class Layer:
    """One layer's curves, with what a figure needs of them at any budget."""

    curves: LayerCurves

    @cached_property
    def table(self) -> pd.DataFrame:
        """method, domain, kind, share, amount, error over the budget range."""
        return pd.DataFrame(self.curves.table())

    @property
    def shape(self) -> tuple[int, int]:
        return self.curves.shape

    def readings(self, share: float) -> pd.DataFrame:
        return lowrank.reading_table(self.curves.readings(share))


def setting() -> Setting:
    """The form: a checkpoint of this page's own; domains and windows are those of the draft."""
    values = draft.values()
    names = [one.name for one in catalogue() if one.available]
    if values["checkpoint"] not in names:
        names.append(values["checkpoint"])
    domains, protocol = tuple(values["domains"]), draft.protocol()
    wanted = links.read("model")
    if wanted not in names:
        wanted = _most_ready(names, domains, protocol)
    chosen = links.choose(
        "Checkpoint", "model", names, wanted, help="Bundled ones, and the one chosen on the Checkpoint page."
    )
    draft.write_link()
    return Setting(chosen, domains, protocol)


def _most_ready(names: Sequence[str], domains: tuple[str, ...], protocol: Protocol) -> str:
    """The draft's checkpoint when its statistics are there, else the smallest, so that a first visit is short."""
    own = draft.values()["checkpoint"]
    if FIRST not in names or entry(Setting(own, domains, protocol)) is not None:
        return own
    return FIRST


def entry(chosen: Setting) -> prepared.Entry | None:
    """Return what has been gathered, or None. Raises CopalError for a checkpoint that cannot be opened."""
    checkpoint = checkpoints.ready(chosen.checkpoint)
    return prepared.find(checkpoint, chosen.domains, chosen.protocol) if checkpoint is not None else None


def ready_entry(chosen: Setting) -> prepared.Entry | None:
    """The entry; while there is none, what to do about that, with a progress bar once it has begun."""
    if not chosen.domains:
        raise CopalError("there is no domain; add at least one on the Domains page")
    if checkpoints.ready(chosen.checkpoint) is None:
        checkpoints.prepare(chosen.checkpoint)
        return None
    found = entry(chosen)
    if found is None:
        _gather(chosen)
    return found


def watch_or_offer(command: str, chosen: Setting, title: str, words: str, button: str) -> None:
    """A worker's task: offered, at work or failed."""
    if tasks.at_work(tasks.find(*chosen.task(command)), title):
        st.caption("You may leave this page; the work goes on.")
        return
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(words, help=GLOSSARY["calibration"])
        st.button(
            button, type="primary", key=f"start-{command}", on_click=tasks.start, args=chosen.task(command)
        )


def _gather(chosen: Setting) -> None:
    texts = ", ".join(plain(label_of(spec)) for spec in chosen.domains)
    windows = str(chosen.protocol.calibration).replace("x", " × ")
    words = (
        f"{plain(chosen.checkpoint)} reads the calibration windows of {texts} once ({windows} tokens each) and keeps "
        f"what every layer's inputs look like. {_cost(chosen)} From then on every layer opens at once, today and later."
    )
    watch_or_offer("gather", chosen, "The layers have not been read yet", words, "Read the layers")


def _cost(chosen: Setting) -> str:
    """A rough time, and the room it takes in the cache folder."""
    description = checkpoints.described(chosen.checkpoint)
    if description is None:
        return ""
    from copal_core.experiment.preflight import matrix_rate

    shapes = description.projections
    weights = sum(out * columns for out, columns in shapes.values())
    narrow, wide = min(inputs := [columns for _, columns in shapes.values()]), max(inputs)
    texts = description.blocks * len(chosen.domains)
    kept = (
        4 * texts * (weights + 3 * narrow**2 + wide**2)
    )  # a coupling for each weight, and four Gram matrices
    tokens = chosen.protocol.calibration.tokens
    seconds = 12 + 8 * weights * tokens * texts / matrix_rate() + kept / 200e6
    return (
        f"This takes about {duration(5 * round(seconds / 5))} and {size(kept)} of disk in the cache folder."
    )


def layer(found: prepared.Entry, fit: str, block: int, projection: str) -> Layer:
    """One layer's curves; computed within seconds, then kept. fit: a domain, or '' for all of them."""
    return _layer(found.key, str(found.checkpoint.folder), fit, block, projection, found)


def close_up(found: prepared.Entry, fit: str, block: int, projection: str) -> CloseUp:
    """The layer's weight and what the pictures need; the last few are kept."""
    return _close_up(found.key, str(found.checkpoint.folder), fit, block, projection, found)


@st.cache_resource(max_entries=_CURVES_KEPT, show_spinner="Computing this layer's curves")
def _layer(key: str, folder: str, fit: str, block: int, projection: str, _found: Any) -> Layer:
    from copal_core.analysis.layers.curves import layer_curves

    library = _found.library()
    statistics = library.statistics(block, projection)
    return Layer(layer_curves(library.weight(block, projection), statistics, [fit] if fit else []))


@st.cache_resource(max_entries=_CLOSE_UPS_KEPT, show_spinner=False)
def _close_up(key: str, folder: str, fit: str, block: int, projection: str, _found: Any) -> CloseUp:
    from copal_core.analysis.layers.close_up import CloseUp
    from copal_core.statistics.library import combined

    library = _found.library()
    statistics = library.statistics(block, projection)
    return CloseUp(
        library.weight(block, projection), combined(statistics, [fit] if fit else list(statistics))
    )


def warm_up() -> None:
    """Begin to import torch beside the page, so that the first layer does not wait for it."""
    import sys
    import threading

    if "torch" not in sys.modules and not any(thread.name == "warm-up" for thread in threading.enumerate()):
        threading.Thread(target=_import, name="warm-up", daemon=True).start()


def _import() -> None:
    import copal_core.analysis.layers.curves  # noqa: F401
