"""A finished run of masks, updated weights, factors and neurons, over two domains."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from copal_core.config import RunConfig
from copal_core.experiment import loop
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

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
    loop.run(store)
    return store
