"""Pruning criteria, one per file. A criterion turns a weight and statistics into importance scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.system.registry import Registry

if TYPE_CHECKING:
    from copal_core.methods.criterion import Criterion

CRITERIA: Registry[Criterion] = Registry("criterion", __name__)
