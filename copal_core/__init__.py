"""COPAL Explorer: continual pruning of language models, its baselines, and their measurement.

`import copal_core as copal` offers what notebooks and scripts need (docs/in-python.md shows it); everything else is
private to the package it lies in. The names are looked up when they are used, so that importing this costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from copal_core.interface import (
        CopalError,
        Pruned,
        Run,
        RunConfig,
        list_checkpoints,
        list_domains,
        list_methods,
        list_runs,
        open_run,
        perplexity,
        prune,
        run,
    )

__all__ = [
    "CopalError",
    "Pruned",
    "Run",
    "RunConfig",
    "list_checkpoints",
    "list_domains",
    "list_methods",
    "list_runs",
    "open_run",
    "perplexity",
    "prune",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'copal_core' has no attribute '{name}'")
    from copal_core import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return list(__all__)
