"""On the shipped checkpoint: neurons planted twice into a real block are found, and their removal costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from copal_core.checkpoints import locate
from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import loop
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

BLOCK, PLANTED = 3, 20


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[frozenset[int]]]:
    """`tiny` with the gate and up rows of 20 neurons of one block copied over 20 others; and which pairs."""
    from transformers import AutoModelForCausalLM

    tiny = locate("tiny")
    model = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=torch.float32)
    mlp = model.model.layers[BLOCK].mlp
    order = torch.randperm(mlp.gate_proj.out_features, generator=torch.Generator().manual_seed(0))
    originals, copies = order[:PLANTED], order[PLANTED : 2 * PLANTED]
    with torch.no_grad():
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight[copies] = linear.weight[originals]
    folder = tmp_path_factory.mktemp("planted")
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder, {frozenset(pair) for pair in zip(originals.tolist(), copies.tolist(), strict=True)}


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, planted: tuple[Path, set[frozenset[int]]]
) -> Callable[[str, Protocol], RunStore]:
    def compute(method: str, protocol: Protocol) -> RunStore:
        config = RunConfig(
            checkpoint=str(planted[0]),
            domains=("python-code", "shakespeare"),
            methods=(method,),
            protocol=protocol,
        )
        store = Runs(tmp_path_factory.mktemp("runs")).create(config)
        loop.run(store)
        return store

    return compute


PROTOCOL = Protocol(
    calibration=Windows(count=8, length=128),
    evaluation=Windows(count=4, length=128),
    device="cpu",
    dtype="float32",
)


def test_planted_copies_are_found_first(
    run: Callable[..., RunStore], planted: tuple[Path, set[frozenset[int]]]
) -> None:
    method = "mutual-information[share=0.2]:restart"
    found = run(method, PROTOCOL).arrays("neurons", method, 1, BLOCK)
    first = {
        frozenset(pair)
        for pair in zip(found["removed"][:PLANTED].tolist(), found["twins"][:PLANTED].tolist(), strict=True)
    }
    assert first == planted[1]
    assert found["information"][:PLANTED].min() > 2 * found["information"][PLANTED:].max()
    assert np.allclose(found["coefficients"][:PLANTED], 1, rtol=1e-4)


def test_with_compensation_their_removal_leaves_perplexity_as_it_was(run: Callable[..., RunStore]) -> None:
    """A threshold of five nats leaves every other pair alone, in every block."""
    method = "mutual-information[share=0.2,threshold=5]:joint"
    store = run(method, PROTOCOL)
    table = store.records.table("neurons")
    removed = table[table["block"] == BLOCK]["removed"].tolist()
    assert removed == [PLANTED, PLANTED]
    assert table["removed"].sum() == 2 * PLANTED
    perplexity = store.perplexity().pivot(index="domain", columns="step", values="perplexity")
    for step in (1, 2):
        assert np.allclose(perplexity[step], perplexity[0], rtol=1e-3)
    bare = run("mutual-information[compensate=false,share=0.2,threshold=5]:joint", PROTOCOL).perplexity()
    bare = bare.pivot(index="domain", columns="step", values="perplexity")
    assert ((bare[2] / bare[0] - 1).abs() > 1e-3).any()
