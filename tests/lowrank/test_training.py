"""Methods that train, in a run: what they see and store, after a cancel, a kill and damage; what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from copal_core.analysis.results import perplexity_matrix, result_of
from copal_core.compression import training
from copal_core.config import Method, RunConfig, Structure
from copal_core.errors import Cancelled
from copal_core.experiment import loop, processes
from copal_core.export.checkpoint import export_checkpoint
from copal_core.export.smaller import measure_smaller
from copal_core.figures import bases
from copal_core.methods.build import build_compressor
from copal_core.methods.factored.modules import install
from copal_core.methods.facts import FactorFacts
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from copal_core.system.registry import Registry

PLRD = "plrd[rate=0.003,tokens=432.0]"
BASEL = "basel[metric=whitened,rounds=2.0,tokens=288.0,tuning=216.0]"
STRATEGIES = ("accumulate", "restart", "joint", "sequential")
METHODS = [f"{PLRD}:{strategy}" for strategy in STRATEGIES] + [f"{BASEL}:accumulate"]
STORED = ("factors", "bases", "memory")


def configured(small_config: Callable[..., RunConfig], methods: list[str], domains: int = 2) -> RunConfig:
    return small_config(methods, domains=domains, structure=Structure(sparsity=0.46))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_config: Callable[..., RunConfig]) -> RunStore:
    """Methods that train beside one that does not, at 60 % of the bytes."""
    config = configured(small_config, ["whitened-svd:restart", *METHODS])
    store = Runs(tmp_path_factory.mktemp("training")).create(config)
    loop.run(store)
    return store


def files_of(store: RunStore) -> dict[str, bytes]:
    paths = [path for kind in STORED for path in (store.folder / kind).rglob("*.safetensors")]
    return {str(path.relative_to(store.folder)): path.read_bytes() for path in paths}


def test_the_result_says_what_was_trained(run: RunStore) -> None:
    found = {one["method"]: one for one in result_of(run)["methods"]}
    free = found["whitened-svd:restart"]
    assert (free["label"], free["tokens"], free["distinct_tokens"], free["losses"]) == (
        "training-free",
        0,
        0,
        [],
    )
    one = found[f"{PLRD}:restart"]  # 3 windows of 24 tokens, two sizes of 432 tokens
    assert one["label"] == "trained on 72 distinct tokens, 12.0 passes"
    assert (one["tokens"], one["distinct_tokens"], len(one["losses"])) == (864, 72, 12)
    assert one["share"] == pytest.approx(0.6025) and one["stored_share"] <= one["share"]
    assert found[f"{PLRD}:joint"]["distinct_tokens"] == 144  # the text of both domains
    assert found[f"{PLRD}:accumulate"]["distinct_tokens"] == 72  # a memory of statistics, and never past text
    assert found[f"{BASEL}:accumulate"]["tokens"] == 288 + 216
    assert all(np.isfinite(one["perplexity"]).all() for one in found.values())
    warned = run.warnings()
    assert not set(warned.loc[warned["kind"] == "training-free", "method"])


def test_training_helps_on_the_text_it_sees(run: RunStore) -> None:
    free, trained = (
        perplexity_matrix(run.perplexity(), method, run.domains)
        for method in ("whitened-svd:restart", f"{PLRD}:restart")
    )
    assert trained[1, 0] < free[1, 0] and trained[2, 1] < free[2, 1]


@pytest.mark.parametrize("method", METHODS)
def test_trained_factors_stand_in_place_of_the_untrained(run: RunStore, method: str) -> None:
    table = run.factors()
    table = table[table["method"] == method]
    assert len(table) == 2 * 2 * 7 and (table["kind"] == "rank").all()
    for row in table.itertuples():
        left = run.arrays("factors", method, row.step, row.block)[f"{row.projection}.left"]
        assert left.shape == (row.rows, row.rank)
    assert table["output_error"].between(0, 1.5).all()
    assert run.is_trained(method, 1) and run.is_trained(method, 2)
    # statistics are left behind where the strategy remembers them, and nowhere else
    assert run.has_arrays("memory", method, 2, 0) == method.endswith("accumulate")


def test_each_step_trains_from_the_weights_of_its_strategy(run: RunStore) -> None:
    """Sequential goes on from what it trained before; the others begin with the dense weights again."""
    rows = run.factors().set_index(["method", "step"])["rank"]
    first = [run.arrays("factors", f"{PLRD}:{name}", 1, 0)["q_proj.left"] for name in STRATEGIES]
    assert all(np.array_equal(one, first[0]) for one in first[1:])
    second = [run.arrays("factors", f"{PLRD}:{name}", 2, 0)["q_proj.left"] for name in STRATEGIES]
    assert not any(np.array_equal(one, second[0]) for one in second[1:])
    assert set(rows[f"{PLRD}:sequential", 1]) == set(rows[f"{PLRD}:sequential", 2])


def test_basels_bases_are_kept(run: RunStore) -> None:
    layers = bases.read_bases(run, f"{BASEL}:accumulate", 2)
    assert len(layers) == 14
    for one in layers:
        size = {"q_proj": (32, 32), "o_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32)}
        rows, columns = size.get(one["projection"], (48, 32))
        assert len(one["kept"]) == len(one["after"]) < len(one["before"])
        assert (len(one["kept"]) + one["added"]) * (rows + columns) <= 0.6025 * rows * columns
        assert len(bases.bases_table(one)) == len(one["before"])


def cancelled_in_training(store: RunStore, after: int) -> None:
    """Compute until a training has begun `after` of its steps, then cancel."""
    told = iter(range(10_000))

    def stop() -> bool:
        return store.state().phase.startswith(("training", "relearning", "tuning")) and next(told) >= after

    with pytest.raises(Cancelled):
        loop.run(store, should_stop=stop)
    assert store.state().status == "cancelled"


@pytest.mark.parametrize("method", [f"{PLRD}:accumulate", f"{BASEL}:joint"])
def test_cancelled_or_killed_it_ends_with_the_same_bytes(
    method: str, small_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(small_config, [method])
    whole, cut = Runs(tmp_path / "a").create(config), Runs(tmp_path / "b").create(config)
    loop.run(whole)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(ticks))
    ticks = iter(range(1_000_000))  # so that every state is written
    cancelled_in_training(cut, 3)
    monkeypatch.undo()
    assert not cut.is_trained(method, 1) and cut.finished_blocks(method, 1) == 2
    untrained = files_of(cut)

    # killed while the trained factors are written: the first block has them, the second has not
    real = training._store_block

    def killed(step: object, backbone: object, trained: object, index: int) -> object:
        if index == 1:
            raise KeyboardInterrupt
        return real(step, backbone, trained, index)

    monkeypatch.setattr(training, "_store_block", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.run(cut)
    monkeypatch.undo()
    assert files_of(cut) != untrained and not cut.is_trained(method, 1)

    loop.run(cut)
    assert files_of(cut) == files_of(whole)
    assert cut.perplexity().equals(whole.perplexity()) and cut.factors().equals(whole.factors())
    assert cut.records.table("losses").equals(whole.records.table("losses"))


def test_a_damaged_block_is_trained_again_with_all_of_its_step(
    small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    method = f"{PLRD}:restart"
    store = Runs(tmp_path).create(configured(small_config, [method], domains=1))
    loop.run(store)
    before = files_of(store)
    store.block_path("factors", method, 1, 1).unlink()
    told: list[str] = []
    loop.run(store, lambda event: told.append(event["event"]))
    assert files_of(store) == before
    assert told.count("block") == 2 and "repair" in told and "trained" in told


def test_computing_again_trains_nothing(run: RunStore) -> None:
    before, told = files_of(run), []
    loop.run(run, lambda event: told.append(event["event"]))
    assert told == ["done"] and files_of(run) == before


def test_a_branch_keeps_what_was_trained(run: RunStore, texts: tuple[str, ...]) -> None:
    new = processes.branch(run, 1, texts[2])
    assert len(new.records.table("training")) == len(METHODS)
    assert new.has_arrays("bases", f"{BASEL}:accumulate", 1, 0)


def test_an_export_computes_what_the_run_measured(run: RunStore, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    method = f"{PLRD}:sequential"
    folder = export_checkpoint(run, method, 2, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    install(model, load_file(folder / "factors" / "factors.safetensors"))
    windows = torch.from_numpy(run.windows(0)["evaluation"])
    with torch.no_grad():
        logits = model(windows).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    R = perplexity_matrix(run.perplexity(), method, run.domains)
    assert float(loss.exp()) == pytest.approx(R[2, 0], rel=1e-3)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "as factors of rank" in card and "; trained on 72 distinct tokens, 12.0 passes;" in card


def test_the_speed_of_factors_stands_beside_the_dense_models(
    run: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPAL_CACHE", str(tmp_path))
    found = measure_smaller(run, f"{PLRD}:joint", 2, prompt=8, written=2)
    assert found["smaller"]["bytes"] < found["dense"]["bytes"]
    assert found["smaller"]["flops_per_token"] < found["dense"]["flops_per_token"]


@pytest.mark.parametrize(
    "text", ["plrd", "basel", "plrd[tokens=0]", "plrd[members=3,tokens=100]", "basel[tuning=7]", "svd"]
)
def test_the_budgets_that_pages_read_from_the_source_are_the_classes_own(text: str) -> None:
    method = Method.parse(f"{text}:restart")
    source: Registry[Any] = Registry("decomposition", "copal_core.methods.lowrank")  # has imported no method
    counted = source.facts(method.name, FactorFacts).tokens_trained(method.options)
    assert counted == build_compressor(method.name, method.options).training_tokens
