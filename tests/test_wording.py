"""What a run removes, in words."""

from __future__ import annotations

import pytest

from copal_core.config import Method, RunConfig, Structure
from copal_core.methods.describe import neuron_share, removed, removed_by


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["copal:joint", "whitened-svd:joint"], "50 % per row"),
        (["random-neurons:joint"], "10 % of the neurons"),
        (["copal-neurons[share=0.3]:joint", "random-neurons[share=0.05]:joint"], "5 %, 30 % of the neurons"),
        (["copal:joint", "copal-neurons[share=0.125]:joint"], "50 % per row; 12.5 % of the neurons"),
        (["svd[keep=0.8]:joint", "hybrid[keep=0.7]:joint"], "20 %, 30 % of the bytes"),
        (["copal:joint", "svd[keep=0.8]:joint"], "50 % per row; 20 % of the bytes"),
    ],
)
def test_removed(methods: list[str], words: str) -> None:
    assert removed(RunConfig(checkpoint="tiny", domains=("a",), methods=tuple(methods))) == words


def test_kept_and_removed_are_not_taken_for_each_other() -> None:
    """1:4 keeps a quarter: what stands beside 'removed' is the rest."""
    config = RunConfig(
        checkpoint="tiny", domains=("a",), methods=("copal:joint",), structure=Structure.parse("1:4")
    )
    assert removed(config) == "75 % (1:4)"


def test_each_method_says_what_it_removes() -> None:
    methods = ("copal:joint", "svd:joint", "svd[keep=0.7]:joint", "random-neurons[share=0.3]:joint")
    config = RunConfig(checkpoint="tiny", domains=("a",), methods=methods)
    found = [removed_by(config, method) for method in methods]
    assert found == ["50 % per row", "bytes as 50 % per row", "30 % of the bytes", "30 % of the neurons"]


def test_the_usual_share_is_that_of_every_selector() -> None:
    from copal_core.methods.build import build_compressor
    from copal_core.methods.neurons import NEURONS

    for name in NEURONS.names():
        assert neuron_share(Method.parse(f"{name}:joint")) == build_compressor(name, {}).share
