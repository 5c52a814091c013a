"""A finished run of masks, updated weights, factors and neurons, over two domains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copal_core import experiment
from copal_core.config import RunConfig
from copal_core.runs import Runs
from copal_core.store import RunStore

METHODS = [
    "copal:accumulate",
    "sparsegpt:sequential",
    "whitened-svd:accumulate",
    "magnitude-neurons:restart",
]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    """Not to be changed."""
    store = Runs(tmp_path_factory.mktemp("computed")).create(small_config(METHODS), title="A <b>run</b>")
    experiment.run(store)
    return store
