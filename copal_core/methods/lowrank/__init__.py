"""Low-rank decompositions, one per file. A decomposition turns a weight and statistics into two factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.system.registry import Registry

if TYPE_CHECKING:
    from copal_core.methods.decomposition import Decomposition

LOWRANK: Registry[Decomposition] = Registry("decomposition", __name__)
