"""Low rank in a run: with every strategy, in the same store and tables as masks."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.checkpoints import locate
from copal_core.config import RunConfig, Structure
from copal_core.errors import Cancelled, RunError
from copal_core.experiment import loop, processes
from copal_core.export.checkpoint import export_checkpoint
from copal_core.export.checkpoints import export_and_check
from copal_core.export.packed_masks import write_masks
from copal_core.methods import stored_size
from copal_core.methods.factored.modules import install
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.strategies import STRATEGIES
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

# untrained; see test_training.py
NAMES = [
    {"plrd": "plrd[tokens=0.0]", "basel": "basel[tokens=0.0,tuning=0.0]"}.get(name, name)
    for name in LOWRANK.names()
]
METHODS = [f"{name}:{strategy}" for name in NAMES for strategy in STRATEGIES.names()]
MIXED = ["wanda:accumulate", "whitened-svd:accumulate", "hybrid:restart"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    """Every decomposition with every strategy over three domains, a criterion before and after them."""
    methods = ["wanda:accumulate", *METHODS, "copal:accumulate"]
    config = small_config(methods, domains=3, propagate="dense", structure=Structure(sparsity=0.6))
    store = Runs(tmp_path_factory.mktemp("lowrank")).create(config)
    loop.run(store)
    return store


@pytest.mark.parametrize("method", METHODS)
def test_measures_every_domain_after_every_step(run: RunStore, method: str) -> None:
    R = perplexity_matrix(run.perplexity(), method, run.domains)
    assert np.isfinite(R).all() and (R > 1).all() and (R[1] != R[0]).all()
    result = next(entry for entry in result_of(run)["methods"] if entry["method"] == method)
    assert result["bwt"] is not None and result["stored_share"] == pytest.approx(0.4625, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_records_every_layer_within_its_budget(run: RunStore, method: str) -> None:
    table = run.factors()
    table = table[table["method"] == method]
    assert len(table) == 3 * 2 * 7
    share = stored_size.structure_share(run.config.structure)
    dense = 2 * table["rows"] * table["columns"]
    # a mask keeps a whole number of weights in each row
    assert (table["bytes"] <= share * dense + table["rows"] + 8).all()
    ranks = table[table["kind"] == "rank"]
    assert (ranks["parameters"] == ranks["rank"] * (ranks["rows"] + ranks["columns"])).all()
    assert (ranks["bytes"] == 2 * ranks["parameters"]).all()
    if not method.startswith("svd"):
        assert table["output_error"].between(0, 1.5).all()


def test_accumulating_equals_joint_under_dense_propagation(run: RunStore) -> None:
    for name in NAMES:
        R = [perplexity_matrix(run.perplexity(), f"{name}:{s}", run.domains) for s in ("accumulate", "joint")]
        assert np.allclose(*R, rtol=2e-3), name
    table = run.factors().set_index(["method", "step", "block", "projection"])["discarded_energy"]
    assert np.allclose(table["whitened-svd:accumulate"], table["whitened-svd:joint"], rtol=1e-4, atol=1e-9)


def test_a_run_of_masks_stays_what_it_was(
    run: RunStore, small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = small_config(
        ["wanda:accumulate"], domains=3, propagate="dense", structure=Structure(sparsity=0.6)
    )
    alone = Runs(tmp_path).create(config)
    loop.run(alone)
    for step in (1, 2, 3):
        one, other = (s.block_path("masks", "wanda:accumulate", step, 1) for s in (alone, run))
        assert one.read_bytes() == other.read_bytes()
    table = run.layers()
    assert alone.layers().equals(table[table["method"] == "wanda:accumulate"].reset_index(drop=True))


def test_overlaps_are_between_masks_alone(run: RunStore) -> None:
    table = run.overlaps()
    pairs = set(zip(table["method_a"], table["method_b"], strict=True))
    assert ("wanda:accumulate", "copal:accumulate") in pairs
    assert all(a.startswith(("wanda", "hybrid")) for a, _ in pairs)


def test_training_free_methods_say_so(run: RunStore) -> None:
    kinds = run.warnings().groupby("method")["kind"].agg(set)
    for name in NAMES:
        trains = name.startswith(("plrd", "basel"))
        assert ("training-free" in kinds.get(f"{name}:joint", ())) == trains


def test_keeping_everything_changes_nothing(small_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    methods = [f"{name}[keep=1]:restart" for name in LOWRANK.names()]
    store = Runs(tmp_path).create(small_config(methods, domains=1))
    loop.run(store)
    table = store.perplexity()
    assert table["perplexity"].nunique() == 1
    assert set(store.factors()["kind"]) == {"dense"}


def test_resuming_gives_the_same_bytes(small_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = small_config([*MIXED, "hybrid[mask=sparsegpt]:restart"], domains=2)
    whole, cut = Runs(tmp_path / "a").create(config), Runs(tmp_path / "b").create(config)
    loop.run(whole)
    asked = iter(range(10_000))
    with pytest.raises(Cancelled):
        loop.run(cut, should_stop=lambda: next(asked) > 14)
    loop.run(cut)
    for kind in ("factors", "masks", "memory"):
        files = sorted(p.relative_to(whole.folder) for p in (whole.folder / kind).rglob("*.safetensors"))
        assert files and files == sorted(
            p.relative_to(cut.folder) for p in (cut.folder / kind).rglob("*.safetensors")
        )
        assert all((whole.folder / f).read_bytes() == (cut.folder / f).read_bytes() for f in files)
    assert whole.perplexity().equals(cut.perplexity()) and whole.factors().equals(cut.factors())


def test_a_branch_keeps_the_factors(
    small_config: Callable[..., RunConfig], texts: tuple[str, ...], tmp_path: Path
) -> None:
    store = Runs(tmp_path).create(small_config(MIXED, domains=2))
    loop.run(store)
    new = processes.branch(store, 1, texts[2])
    assert len(new.factors()) == 2 * 2 * 7
    loop.run(new)
    assert new.state().status == "done"


@pytest.mark.parametrize("method", ["whitened-svd:accumulate", "hybrid:accumulate"])
def test_an_export_computes_what_the_run_measured(run: RunStore, method: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = export_checkpoint(run, method, 3, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    windows = torch.from_numpy(run.windows(0)["evaluation"])
    with torch.no_grad():
        logits = model(windows).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    R = perplexity_matrix(run.perplexity(), method, run.domains)
    install(model, load_file(folder / "factors" / "factors.safetensors"))
    with torch.no_grad():
        assert torch.allclose(model(windows).logits[:, :-1], logits, atol=1e-3)
    assert float(loss.exp()) == pytest.approx(R[3, 0], rel=1e-4)
    assert locate(str(folder)).describe().total == locate(run.config.checkpoint).describe().total


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    """80 % of the bytes, whatever the structure says, by methods with and without masks."""
    methods = ["svd[keep=0.8]:restart", "hybrid[keep=0.8]:restart"]
    store = Runs(tmp_path_factory.mktemp("kept")).create(small_config(methods, domains=1))
    loop.run(store)
    return store


@pytest.mark.parametrize("name", ["svd", "hybrid"])
def test_an_export_says_what_was_kept(kept: RunStore, name: str, tmp_path: Path) -> None:
    method = f"{name}[keep=0.8]:restart"
    table = kept.factors()
    table = table[table["method"] == method]
    share = 100 * table["bytes"].sum() / (2 * table["rows"] * table["columns"]).sum()
    assert share == pytest.approx(80, abs=6)
    export_and_check(kept, method, 1, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"Kept {share:.3g} % of the bytes of the linear layers: " in card
    counts = table["kind"].value_counts()
    for kind, words in (("rank", "as factors of rank"), ("mask", "as masks that remove")):
        assert (f"{counts.get(kind, 0)} {words}" in card) == (kind in counts)
    assert "Factors are multiplied out" in card
    assert "50 %" not in card and "Removed" not in card
    with pytest.raises(RunError, match="no structure to declare"):
        export_and_check(kept, method, 1, tmp_path / "packed", "compressed-tensors")


def test_the_packed_masks_of_a_hybrid_say_what_was_kept(kept: RunStore, tmp_path: Path) -> None:
    """Only the layers that a mask won have one; those removed less than the run's structure."""
    method = "hybrid[keep=0.8]:restart"
    with zipfile.ZipFile(write_masks(kept, method, 1, tmp_path / "masks.zip")) as archive:
        words = archive.read("README.md").decode()
    masks = [mask for block in range(2) for mask in kept.masks(method, 1, block).values()]
    gone = 100 * sum((~mask).sum() for mask in masks) / sum(mask.size for mask in masks)
    found = re.search(r"(\d+) as masks that remove ([\d.]+) % of their weights", words)
    assert found and int(found[1]) == len(masks) and float(found[2]) == pytest.approx(gone, rel=0.01)
    assert "Kept " in words and "50 %" not in words and "hybrid" in words
