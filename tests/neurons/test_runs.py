"""Neuron methods in a run: with every strategy, in the same store, and as a smaller checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.compression.restore import variant
from copal_core.config import RunConfig
from copal_core.errors import Cancelled
from copal_core.experiment import loop, processes
from copal_core.export.checkpoint import export_checkpoint
from copal_core.methods.neurons import NEURONS
from copal_core.methods.strategies import STRATEGIES
from copal_core.statistics.accumulators import BlockStatistics
from copal_core.statistics.blockwise import HiddenStates
from copal_core.statistics.capture import capture
from copal_core.statistics.neurons import ColumnSensitivity, NeuronGram, NormalScoreGram, RowSensitivity
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

METHODS = [f"{name}[share=0.25]:{strategy}" for name in NEURONS.names() for strategy in STRATEGIES.names()]
REMOVED, WIDTH = 12, 48
Config = Callable[..., RunConfig]


def neurons_of(store: RunStore, method: str = "") -> "pd.DataFrame":  # noqa: F821, UP037
    table = store.records.table("neurons")
    return table[table["method"] == method] if method else table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_config: Config) -> RunStore:
    """Every selector with every strategy over three domains, a criterion before them."""
    config = small_config(["wanda:accumulate", *METHODS], domains=3, propagate="dense")
    store = Runs(tmp_path_factory.mktemp("neurons")).create(config)
    loop.run(store)
    return store


@pytest.mark.parametrize("method", METHODS)
def test_measures_and_counts_every_step(run: RunStore, method: str) -> None:
    R = perplexity_matrix(run.perplexity(), method, run.domains)
    assert np.isfinite(R).all() and (R > 1).all() and (R[1] != R[0]).all()
    table = neurons_of(run, method)
    assert len(table) == 3 * 2
    assert (table["removed"] == REMOVED).all() and (table["neurons"] == WIDTH).all()
    assert (table["parameters"] == 3 * 32 * (WIDTH - REMOVED)).all()
    later = table[table["step"] > 1]
    assert (later["stay_removed"] + later["newly_removed"] == REMOVED).all()
    assert (later["revived"] == later["newly_removed"]).all()
    result = next(entry for entry in result_of(run)["methods"] if entry["method"] == method)
    assert result["bwt"] is not None and result["sparsity"] == 0.25
    assert result["neurons_removed"] == 2 * REMOVED and len(result["stasis"]) == 2
    feed_forward = 3 * 32 * WIDTH / (3 * 32 * WIDTH + 32 * (32 + 16 + 16 + 32))
    assert result["stored_share"] == pytest.approx(1 - 0.25 * feed_forward)


def test_without_text_or_with_removed_weights_the_choice_stands_still(run: RunStore) -> None:
    stasis = {entry["method"]: entry["stasis"] for entry in result_of(run)["methods"]}
    for method in METHODS:
        if method.endswith(":sequential") or method.startswith(("random", "magnitude")):
            assert stasis[method] == [1.0, 1.0], method
    assert min(stasis["mutual-information[share=0.25]:restart"]) < 1


@pytest.mark.parametrize("name", NEURONS.names())
def test_accumulating_equals_joint_under_dense_propagation(run: RunStore, name: str) -> None:
    for step in (1, 2, 3):
        for block in (0, 1):
            one, other = (
                run.arrays("neurons", f"{name}[share=0.25]:{s}", step, block) for s in ("accumulate", "joint")
            )
            assert np.array_equal(one["kept"], other["kept"])
            assert np.allclose(one["down"], other["down"], atol=1e-4)


def test_nothing_is_gathered_where_nobody_needs_it(small_model: Path) -> None:
    backbone = Backbone(small_model, "cpu", "float32")
    tokens = torch.arange(2 * 24).reshape(2, 24)
    statistics = (NormalScoreGram(), NeuronGram(), RowSensitivity(), ColumnSensitivity())
    states = HiddenStates(backbone, [tokens])
    with backbone.block(0) as block, capture(block, statistics) as gathered:
        states.advance(block)
    totals = {
        name: {key: tuple(total.shape) for key, total in group.totals.items()}
        for name, group in gathered.groups.items()
    }
    assert totals == {
        "attention_input": {},
        "attention_output": {},
        "mlp_input": {"row_sensitivity": (WIDTH,)},
        "mlp_output": {
            "normal_score_gram": (WIDTH, WIDTH),
            "input_gram": (WIDTH, WIDTH),
            "column_sensitivity": (WIDTH,),
        },
    }
    assert gathered.groups["mlp_output"].tokens == 48
    again = BlockStatistics.from_tensors(gathered.to_tensors())
    assert torch.equal(
        again.plus(again).groups["mlp_input"].require("row_sensitivity"),
        2 * gathered.groups["mlp_input"].require("row_sensitivity"),
    )


MIXED = [
    "wanda:restart",
    *(f"mutual-information:{s}" for s in ("accumulate", "sequential")),
    "copal-neurons:accumulate",
]


def test_resuming_gives_the_same_bytes(small_config: Config, tmp_path: Path) -> None:
    config = small_config(MIXED, domains=2)
    whole, cut = Runs(tmp_path / "a").create(config), Runs(tmp_path / "b").create(config)
    loop.run(whole)
    asked = iter(range(10_000))
    with pytest.raises(Cancelled):
        loop.run(cut, should_stop=lambda: next(asked) > 14)
    loop.run(cut)
    for kind in ("neurons", "masks", "memory"):
        files = sorted(p.relative_to(whole.folder) for p in (whole.folder / kind).rglob("*.safetensors"))
        assert files and files == sorted(
            p.relative_to(cut.folder) for p in (cut.folder / kind).rglob("*.safetensors")
        )
        assert all((whole.folder / f).read_bytes() == (cut.folder / f).read_bytes() for f in files)
    assert whole.perplexity().equals(cut.perplexity()) and neurons_of(whole).equals(neurons_of(cut))


def test_a_branch_keeps_the_neurons(small_config: Config, texts: tuple[str, ...], tmp_path: Path) -> None:
    store = Runs(tmp_path).create(small_config(MIXED, domains=2))
    loop.run(store)
    new = processes.branch(store, 1, texts[2])
    assert len(neurons_of(new)) == 3 * 2
    loop.run(new)
    assert new.state().status == "done"


@torch.no_grad()
def logits(store: RunStore, method: str, step: int, windows: torch.Tensor) -> torch.Tensor:
    """Of the model at its full size, with zeros where neurons were removed."""
    backbone = Backbone(locate(store.config.checkpoint).folder, "cpu", "float32")
    model, weights_of = backbone.causal_lm(), variant(store, method, step)
    for index in range(backbone.depth):
        with backbone.block(index) as block:
            for name, weight in weights_of(index, block).items():
                linears(block)[name].weight.data = weight
    return model(windows).logits


@pytest.mark.parametrize("method", [m for m in METHODS if m.endswith((":accumulate", ":sequential"))])
def test_the_smaller_model_is_stock_and_computes_the_same(run: RunStore, method: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    folder = export_checkpoint(run, method, 3, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, LlamaForCausalLM)
    assert model.config.intermediate_size == WIDTH - REMOVED
    windows = torch.from_numpy(run.windows(0)["evaluation"])
    masked = logits(run, method, 3, windows)
    with torch.no_grad():
        assert torch.allclose(model(windows).logits, masked, atol=1e-4)
    loss = torch.nn.functional.cross_entropy(masked[:, :-1].flatten(0, 1), windows[:, 1:].flatten())
    R = perplexity_matrix(run.perplexity(), method, run.domains)
    assert float(loss.exp()) == pytest.approx(R[3, 0], rel=1e-4)
    saved = locate(run.config.checkpoint).describe().total - locate(str(folder)).describe().total
    assert saved == 2 * 3 * 32 * REMOVED
    assert "24 of 96 hidden neurons" in (folder / "README.md").read_text()


def test_unequal_blocks_fill_up_with_zeros(small_config: Config, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    method = "mutual-information[share=0.5,threshold=0.15]:restart"
    store = Runs(tmp_path).create(small_config([method], domains=1))
    loop.run(store)
    removed = neurons_of(store)["removed"].tolist()
    assert len(set(removed)) == 2 and len(store.warnings()) >= 1
    model = AutoModelForCausalLM.from_pretrained(export_checkpoint(store, method, 1, tmp_path / "out"))
    assert model.config.intermediate_size == WIDTH - min(removed)
    windows = torch.from_numpy(store.windows(0)["evaluation"])
    with torch.no_grad():
        assert torch.allclose(model(windows).logits, logits(store, method, 1, windows), atol=1e-4)


def test_removing_nothing_changes_nothing(small_config: Config, tmp_path: Path) -> None:
    methods = [f"{name}[share=0.0]:restart" for name in NEURONS.names()]
    store = Runs(tmp_path).create(small_config(methods, domains=1))
    loop.run(store)
    assert store.perplexity()["perplexity"].nunique() == 1
