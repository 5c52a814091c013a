"""Figures of a run by their names, drawn from its tables as the app draws them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from copal_core.errors import InvalidValueError, RunError
from copal_core.figures import forgetting, layers, stasis
from copal_core.store.run_store import RunStore


def draw(store: RunStore, name: str, **choices: Any) -> go.Figure:
    """Draw the figure `name` of `FIGURES`. choices: method, domain or step, where the figure has one.

    Raises InvalidValueError that lists the known names or choices, RunError when nothing was recorded that it shows.
    """
    if name not in FIGURES:
        raise InvalidValueError(f"figure '{name}' is not known; known: {', '.join(FIGURES)}")
    function, taken = FIGURES[name]
    unknown = sorted(set(choices) - set(taken))
    if unknown:
        known = ", ".join(taken) or "none"
        raise InvalidValueError(f"figure '{name}' has no choice '{unknown[0]}'; its choices: {known}")
    return function(store, **choices)


def _methods(store: RunStore) -> list[str]:
    return [str(method) for method in store.config.methods]


def _summary(store: RunStore) -> pd.DataFrame:
    return forgetting.summary_table(store.perplexity(), _methods(store), store.domains)


def _average(store: RunStore) -> go.Figure:
    dense = forgetting.dense_average(store.perplexity(), store.domains)
    return forgetting.average_figure(_something(store, "average", _summary(store)), dense)


def _transfer(store: RunStore) -> go.Figure:
    summary = _summary(store).dropna(subset=["backward_transfer"])
    return forgetting.transfer_figure(_something(store, "transfer", summary))


def _perplexity(store: RunStore, domain: str | None = None) -> go.Figure:
    domains = store.domains
    chosen = domains[0] if domain is None else domain
    if chosen not in domains:
        raise InvalidValueError(f"domain '{chosen}' is not in run '{store.id}'; it has {', '.join(domains)}")
    measured = _something(store, "perplexity", store.perplexity())
    table = forgetting.curve_table(measured, _methods(store), domains, chosen)
    return forgetting.curve_figure(table, added=domains.index(chosen) + 1)


def _matrix(store: RunStore, method: str | None = None) -> go.Figure:
    chosen, measured = store.choose_method(method), _something(store, "matrix", store.perplexity())
    # one scale for all methods of the run, so that their figures compare
    tables = {name: forgetting.matrix_table(measured, name, store.domains) for name in _methods(store)}
    return forgetting.matrix_figure(tables[chosen], forgetting.ratio_range(list(tables.values())))


def _stasis(store: RunStore) -> go.Figure:
    return stasis.step_figure(_something(store, "stasis", stasis.step_table(store.layers(), _methods(store))))


def _moves(store: RunStore, method: str | None = None) -> go.Figure:
    table = stasis.flow_table(store.layers(), store.choose_method(method))
    return stasis.flow_figure(_something(store, "moves", table), store.domains)


def _overlap(store: RunStore, step: int | None = None) -> go.Figure:
    after, overlaps = store.choose_step(step), _something(store, "overlap", store.overlaps())
    masked = [method for method in _methods(store) if (store.layers()["method"] == method).any()]
    return stasis.overlap_figure(stasis.overlap_table(overlaps, masked, after))


def _sensitivity(store: RunStore, method: str | None = None, step: int | None = None) -> go.Figure:
    found = store.layers()
    table = layers.layer_table(found, store.choose_method(method), store.choose_step(step), "memory")
    colours = layers.colour_range("memory", _something(store, "sensitivity", table))
    return layers.layer_figure(table, "memory", colours, int(found["block"].max()) + 1)


def _something(store: RunStore, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table, unless it is empty. Raises RunError."""
    if not len(table):
        raise RunError(
            f"run '{store.id}' has recorded nothing that figure '{name}' shows; transfer, stasis and moves begin at "
            "the second domain, an overlap needs two methods, and all but transfer and perplexity need masks"
        )
    return table


# name -> how it is drawn, and the choices that it takes
FIGURES: dict[str, tuple[Callable[..., go.Figure], tuple[str, ...]]] = {
    "average": (_average, ()),
    "transfer": (_transfer, ()),
    "perplexity": (_perplexity, ("domain",)),
    "matrix": (_matrix, ("method",)),
    "stasis": (_stasis, ()),
    "moves": (_moves, ("method",)),
    "overlap": (_overlap, ("step",)),
    "sensitivity": (_sensitivity, ("method", "step")),
}
