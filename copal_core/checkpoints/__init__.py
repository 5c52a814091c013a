"""Checkpoints: from a name to a complete folder, its description and the loaded model. No torch at import."""

from copal_core.checkpoints.checkpoint import Checkpoint
from copal_core.checkpoints.description import Description
from copal_core.checkpoints.sources import KnownCheckpoint, catalogue, locate

__all__ = ["Checkpoint", "Description", "KnownCheckpoint", "catalogue", "locate"]
