"""Continual strategies, one per file. A strategy decides what is remembered from one domain to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.system.registry import Registry

if TYPE_CHECKING:
    from copal_core.methods.strategy import Strategy

STRATEGIES: Registry[Strategy] = Registry("strategy", __name__)
