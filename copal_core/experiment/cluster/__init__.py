"""Groups and large calibrations on Ray: the same numbers, computed by whoever is free.

Ray is optional (requirements-cluster.txt); nothing here imports it before it is used.
"""

from copal_core.experiment.cluster.connection import Cluster, available, connected, require_ray

__all__ = ["Cluster", "available", "connected", "require_ray"]
