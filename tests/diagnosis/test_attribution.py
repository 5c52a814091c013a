"""Attribution: exact at both ends, finds a planted damage, goes on after a stop, refuses what makes no sense."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from copal_core.analysis.diagnosis.attribution import Part, measure, parts_of
from copal_core.analysis.diagnosis.attribution_folder import Attribution, request_for
from copal_core.analysis.diagnosis.attribution_job import compute
from copal_core.analysis.diagnosis.ranking import Tally, cost_left, next_pass
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.cli.main import main
from copal_core.compression.restore import dense_weights, variant
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment.evaluation import token_losses
from copal_core.store.run_store import RunStore

METHOD = "wanda:restart"


@pytest.fixture(scope="module")
def store(finished: Callable[[str, str], RunStore]) -> RunStore:
    return finished("unstructured", "pruned")


@pytest.fixture(scope="module")
def backbone(small_model: Path) -> Backbone:
    return Backbone(small_model, "cpu", "float32")


@pytest.fixture(scope="module")
def windows(store: RunStore) -> Tensor:
    kept = store.windows(0)
    assert kept is not None
    return torch.from_numpy(kept["evaluation"])


def everything(blocks: int) -> Part:
    return Part("everything", frozenset((b, name) for b in range(blocks) for name in PROJECTIONS))


@pytest.mark.parametrize("method", [METHOD, "sparsegpt:accumulate", "copal:sequential"])
def test_both_ends_are_the_two_models_exactly(
    store: RunStore, backbone: Backbone, windows: Tensor, method: str
) -> None:
    first, last = variant(store, method, 1), variant(store, method, 3)
    found = measure(
        backbone, windows, last, first, [everything(backbone.depth), Part("nothing", frozenset())]
    )
    (earlier,), (final,) = (token_losses(backbone, [windows], one) for one in (first, last))
    assert torch.equal(found.earlier, earlier)
    assert torch.equal(found.final, final)
    assert torch.equal(found.parts["everything"], earlier)
    assert torch.equal(found.parts["nothing"], final)
    stasis = method.endswith("sequential")  # its mask cannot move
    assert torch.equal(earlier, final) == stasis


@pytest.mark.parametrize("kind", ["block", "projection", "layer"])
def test_every_part_is_what_replacing_its_weights_gives(
    store: RunStore, backbone: Backbone, windows: Tensor, kind: str
) -> None:
    first, last = variant(store, METHOD, 1), variant(store, METHOD, 3)
    parts = parts_of(kind, backbone.depth)
    found = measure(backbone, windows, last, first, parts)
    for part in parts:

        def restored(index: int, block: nn.Module, part: Part = part) -> dict[str, Tensor]:
            old = first(index, block)
            return {**last(index, block), **{name: old[name] for name in part.at(index)}}

        assert torch.equal(found.parts[part.name], token_losses(backbone, [windows], restored)[0]), part.name


def test_one_damaged_block_ranks_first(make_model: Callable[..., Path]) -> None:
    """The final model is the earlier one but for a block whose weights lost all structure, and another a little."""
    backbone = Backbone(make_model(num_hidden_layers=4), "cpu", "float32")
    text = torch.randint(1, 300, (3, 32), generator=torch.Generator().manual_seed(1))
    # a random model predicts nothing; text that it predicts well has something to lose
    text = _likely(backbone, text)

    def damaged(index: int, block: nn.Module) -> dict[str, Tensor]:
        weights = dict(dense_weights(block))
        if index == 2:
            weights = {name: weight.flip(0) for name, weight in weights.items()}
        if index == 0:
            weights["k_proj"] = weights["k_proj"] * 1.001
        return weights

    found = measure(backbone, text, damaged, lambda index, block: dense_weights(block), parts_of("block", 4))
    tally = Tally(text.shape[1] - 1)
    tally.add(0, found)
    ranking = tally.ranking()
    assert tally.forgotten > 0.5
    assert ranking[0].part == "block 2"
    assert ranking[0].nats > 10 * abs(ranking[1].nats)
    assert ranking[0].share == pytest.approx(1, abs=0.02)
    untouched = {one.part: one.nats for one in ranking}
    assert untouched["block 1"] == untouched["block 3"] == 0


@torch.no_grad()
def _likely(backbone: Backbone, text: Tensor) -> Tensor:
    """Greedy continuations of the first tokens."""
    model = Backbone(backbone.folder, "cpu", "float32").causal_lm()
    text = text[:, :4]
    while text.shape[1] < 32:
        text = torch.cat([text, model(input_ids=text).logits[:, -1:].argmax(dim=-1)], dim=1)
    return text


def test_blocks_are_visited_and_given_back(store: RunStore, backbone: Backbone, windows: Tensor) -> None:
    visited: list[int] = []
    before = token_losses(backbone, [windows])[0]
    first, last = variant(store, METHOD, 1), variant(store, METHOD, 3)
    measure(backbone, windows, last, first, parts_of("block", 2), visited.append)
    assert visited == [0, 1]
    assert torch.equal(token_losses(backbone, [windows])[0], before)
    with backbone.block(0) as block:
        assert set(linears(block)) == set(PROJECTIONS)


# -- the plan ------------------------------------------------------------------------------------------


def follow(names: list[str], windows: int, worth: Callable[[str], float], at_once: int = 4) -> Tally:
    tally = Tally(10)
    passes = 0
    while (planned := next_pass(tally, names, windows, at_once)) is not None:
        passes += 1
        assert passes < 200
        assert planned.stop - planned.first <= at_once
        for window in range(planned.first, planned.stop):
            if window == len(tally.final):
                tally.final.append(20.0)
                tally.earlier.append(10.0)
            for name in planned.parts:
                tally.parts.setdefault(name, []).append((worth(name), worth(name) ** 2))
        done, total = cost_left(tally, names, windows)
        assert 0 < done <= total
    assert cost_left(tally, names, windows)[0] == cost_left(tally, names, windows)[1]
    return tally


def test_the_first_pass_ranks_everything_and_the_best_are_refined() -> None:
    names = [f"block {index}" for index in range(30)]
    planned = next_pass(Tally(10), names, 12, 4)
    assert planned is not None and planned.parts == tuple(names) and (planned.first, planned.stop) == (0, 1)
    tally = follow(names, 12, lambda name: float(name.split()[1]))
    seen = {name: len(found) for name, found in tally.parts.items()}
    assert seen["block 29"] == 12 and seen["block 0"] == 1
    assert [one.part for one in tally.ranking()][:3] == ["block 29", "block 28", "block 27"]
    assert sum(seen.values()) < 30 * 12 / 2


@pytest.mark.parametrize("parts, windows", [(1, 1), (2, 12), (7, 3), (210, 12)])
def test_every_plan_ends(parts: int, windows: int) -> None:
    tally = follow([str(index) for index in range(parts)], windows, lambda name: -float(name))
    assert max(map(len, tally.parts.values())) == windows
    assert len(tally.final) == windows


def test_error_and_share_of_a_part() -> None:
    tally = Tally(4, final=[20.0], earlier=[12.0], parts={"a": [(2.0, 2.0)]})
    (found,) = tally.ranking()
    assert found.nats == pytest.approx(0.5)
    assert found.share == pytest.approx(0.25)
    assert found.error == pytest.approx(((2 / 4 - 0.25) / 4) ** 0.5)
    gained = Tally(4, final=[12.0], earlier=[20.0], parts={"a": [(2.0, 2.0)]})
    assert gained.ranking()[0].share is None


# -- the job -------------------------------------------------------------------------------------------


def fresh(store: RunStore, kind: str = "block", method: str = METHOD) -> Attribution:
    found = Attribution(store, request_for(store, method, 1, kind))
    for path in found.folder.glob("*.json"):
        path.unlink()
    return found


def test_a_stopped_job_goes_on_to_the_same_numbers(store: RunStore) -> None:
    attribution = fresh(store, "layer")
    compute(attribution)
    whole = (attribution.folder / "tally.json").read_bytes()
    assert attribution.state().status == "done"
    fresh(store, "layer")
    asked = 0

    def stop_after_some() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with pytest.raises(Cancelled):
        compute(attribution, should_stop=stop_after_some)
    assert attribution.state().status == "cancelled"
    kept = attribution.tally()
    assert kept.parts and len(kept.final) < 2
    compute(attribution)
    assert (attribution.folder / "tally.json").read_bytes() == whole


def test_the_result_agrees_with_the_runs_own_perplexity(store: RunStore) -> None:
    attribution = fresh(store)
    compute(attribution)
    result = attribution.result()
    table = store.perplexity().set_index(["method", "step", "domain"])["mean_nats"]
    domain = store.domains[0]
    assert result["domain"] == domain
    assert result["mean_nats"]["final"] == pytest.approx(table[METHOD, 3, domain], abs=1e-6)
    assert result["mean_nats"]["earlier"] == pytest.approx(table[METHOD, 1, domain], abs=1e-6)
    assert {one["part"] for one in result["parts"]} == {"block 0", "block 1"}


@pytest.mark.parametrize("method", ["whitened-svd:restart", "mutual-information:restart"])
def test_low_rank_and_neurons_are_attributed_the_same_way(
    small_config: Callable[..., object], tmp_path: Path, method: str
) -> None:
    from copal_core.experiment import loop
    from copal_core.store.runs import Runs

    store = Runs(tmp_path).create(small_config([method]))  # type: ignore[arg-type]
    loop.run(store)
    attribution = fresh(store, "projection", method)
    compute(attribution)
    assert len(attribution.result()["parts"]) == 7
    assert attribution.folder.is_relative_to(tmp_path / "diagnoses" / store.id)
    assert not list(store.folder.rglob("tally.json"))


@pytest.mark.parametrize(
    "method, domain, kind, windows, words",
    [
        ("wanda:nonsense", 1, "block", None, "not in the run"),
        (METHOD, 3, "block", None, "cannot be forgotten"),
        (METHOD, 0, "block", None, "cannot be forgotten"),
        (METHOD, 1, "head", None, "known: block, projection, layer"),
        (METHOD, 1, "block", 99, "choose 1 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    store: RunStore, method: str, domain: int, kind: str, windows: int | None, words: str
) -> None:
    with pytest.raises(InvalidValueError, match=words):
        request_for(store, method, domain, kind, windows)


def test_a_recorded_run_without_masks_says_so() -> None:
    from copal_core.store.runs import Runs

    with pytest.raises(RunError, match="keeps no weights"):
        request_for(Runs().open("recorded-smollm2-135m"), METHOD, 1)


def test_command_line(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    fresh(store)
    arguments = [
        "attribute",
        store.id,
        "--runs",
        str(store.folder.parent),
        "--method",
        METHOD,
        "--domain",
        "1",
    ]
    assert main([*arguments, "--json", "--windows", "1"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed)
    assert result["windows"] == 1 and len(result["parts"]) == 2
    assert main(arguments) == 0
    assert "returned, nats" in capsys.readouterr().out
    assert main([*arguments[:-1], "prose"]) == 2
    assert "its domains: " in capsys.readouterr().err


def test_started_as_a_process_of_its_own(store: RunStore) -> None:
    from copal_core.analysis.diagnosis import attribution_folder
    from copal_core.experiment import processes

    attribution = fresh(store)
    attribution_folder.start(attribution)
    processes._children[-1].wait()
    assert attribution.state().status == "done", (attribution.folder / "process.log").read_text()
    assert attribution.result()["parts"]


def test_the_ranking_needs_no_torch() -> None:
    script = "import sys, copal_core.analysis.diagnosis.attribution_job; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
