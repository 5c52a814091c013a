"""What a run removes, in words."""

from __future__ import annotations

import pytest

from copal_core.config import Method, RunConfig
from copal_core.wording import neuron_share, removed


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["copal:joint", "whitened-svd:joint"], "50% per row"),
        (["random-neurons:joint"], "10% of the neurons"),
        (["copal-neurons[share=0.3]:joint", "random-neurons[share=0.05]:joint"], "5%, 30% of the neurons"),
        (["copal:joint", "copal-neurons[share=0.125]:joint"], "50% per row; 12.5% of the neurons"),
    ],
)
def test_removed(methods: list[str], words: str) -> None:
    assert removed(RunConfig(checkpoint="tiny", domains=("a",), methods=tuple(methods))) == words


def test_the_usual_share_is_that_of_every_selector() -> None:
    from copal_core.compressors import build_compressor
    from copal_core.neurons import NEURONS

    for name in NEURONS.names():
        assert neuron_share(Method.parse(f"{name}:joint")) == build_compressor(name, {}).share
