"""A real factored model: that it computes, learns, stops, and measures itself; and the commands."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from copal_core.analysis import speed
from copal_core.analysis.layers.preferences import preferences
from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import module_names, place_of
from copal_core.cli.main import main
from copal_core.config import Protocol, Windows
from copal_core.errors import Cancelled, InvalidValueError
from copal_core.methods.decomposition import Factors
from copal_core.methods.describe import trained_words
from copal_core.methods.factored.modules import factored_modules, install, replaced
from copal_core.methods.factored.training import Budget, batch_loss, train
from copal_core.methods.factored.workshop import Workshop
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.lowrank.basel import split
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.statistics.library import LayerLibrary, layer_library

PROTOCOL = Protocol(
    calibration=Windows.parse("8x32"),
    evaluation=Windows.parse("4x32"),
    propagate="dense",
    device="cpu",
    dtype="float32",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def library(cache: None, small_model: Path, texts: tuple[str, ...]) -> LayerLibrary:
    return layer_library(locate(str(small_model)), texts[:2], PROTOCOL)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32).eval().requires_grad_(False)


@pytest.fixture
def workshop(library: LayerLibrary, model: Any) -> Workshop:
    """All layers with their statistics on the first domain, whose text is trained on."""

    def layers(label: str) -> Iterator[tuple[str, torch.Tensor, GroupStatistics]]:
        for name in module_names(library.blocks):
            block, projection = place_of(name)
            given = library.statistics(block, projection)["code.txt"]
            yield name, library.weight(block, projection), given

    return Workshop(model, layers, library.domains[0].calibration)


def whitened(workshop: Workshop, keep: float = 0.5) -> dict[str, Factors]:
    method = LOWRANK.build("whitened-svd", {})
    return workshop.each(lambda weight, given, _: method.at_share(weight, given, keep), {}, "factorising")


def loss(workshop: Workshop, factors: dict[str, Factors], tokens: torch.Tensor) -> float:
    """Mean nats a token of the model with factors in place of its layers."""
    with torch.no_grad(), replaced(workshop.model, factored_modules(workshop.model, factors)):
        return float(batch_loss(workshop.model, tokens))


class TestStatistics:
    def test_are_found_again_in_the_cache(self, library: LayerLibrary, texts: tuple[str, ...]) -> None:
        told: list[str] = []
        again = layer_library(
            library.checkpoint, texts[:2], PROTOCOL, report=lambda label, *_: told.append(label)
        )
        assert not any("calibrating" in label for label in told)
        assert again.folders == library.folders

    def test_equal_a_calibration_pass(self, library: LayerLibrary) -> None:
        from copal_core.statistics.blockwise import HiddenStates
        from copal_core.statistics.library import ALL

        backbone = Backbone(library.checkpoint.folder, "cpu", "float32")
        states = HiddenStates(backbone, [library.domains[1].calibration])
        for index in range(2):
            with backbone.block(index) as block:
                found = states.calibrate(block, ALL, advance=True)[0]
        kept = library.statistics(1, "up_proj")["drama.txt"]
        group = found.groups["mlp_input"]
        assert torch.equal(kept.require("input_gram"), group.require("input_gram"))
        assert torch.equal(kept.require("absolute_coupling"), group.require("absolute_coupling")[48:])
        assert kept.tokens == group.tokens == 8 * 32

    def test_can_be_cancelled(self, library: LayerLibrary, texts: tuple[str, ...]) -> None:
        other = PROTOCOL.model_copy(update={"seed": 7})

        def cancel(label: str, done: int, total: int) -> None:
            if label.startswith("calibrating") and done == 1:
                raise Cancelled("cancelled")

        with pytest.raises(Cancelled):
            layer_library(library.checkpoint, texts[:1], other, cancel)
        told: list[int] = []
        layer_library(library.checkpoint, texts[:1], other, lambda label, done, total: told.append(done))
        assert 0 in told and 1 in told  # a pass that was cut short starts again

    def test_refuse_a_layer_that_does_not_exist(self, library: LayerLibrary) -> None:
        with pytest.raises(InvalidValueError, match="choose 0 to 1"):
            library.weight(2, "q_proj")
        with pytest.raises(InvalidValueError, match="not known"):
            library.weight(0, "x_proj")

    def test_every_layer_prefers_something(self, library: LayerLibrary) -> None:
        errors = preferences(library, shares=(0.5, 0.8))
        assert errors["wanda"].shape == (2, 7, 2)
        assert (errors["whitened-svd"][:, :, 1] < errors["whitened-svd"][:, :, 0]).all()


class TestModel:
    def test_computes_what_the_merged_weights_compute(
        self, workshop: Workshop, library: LayerLibrary
    ) -> None:
        tokens, factors = library.domains[0].evaluation, whitened(workshop)
        merged = copy.deepcopy(workshop.model)
        for name, one in factors.items():
            merged.get_submodule(name).weight.data = one.weight()
        with torch.no_grad():
            expected = float(batch_loss(merged, tokens))
        assert loss(workshop, factors, tokens) == pytest.approx(expected, rel=1e-4)
        assert isinstance(
            workshop.model.get_submodule(module_names(2)[0]), torch.nn.Linear
        )  # the layer is back

    def test_counts_its_size_and_measures_its_speed(self, workshop: Workshop) -> None:
        factors = whitened(workshop)
        arrays = {
            f"{n}.{side}": getattr(one, side) for n, one in factors.items() for side in ("left", "right")
        }
        small = install(copy.deepcopy(workshop.model), arrays)
        models = {"dense": lambda: nullcontext(workshop.model), "factored": lambda: nullcontext(small)}
        found = speed.by_turns(models, prompt=16, written=4)
        saved = 2 * (48 * 32 * 3 + 32 * 32 * 2 + 16 * 32 * 2) - sum(
            one.parameters for one in factors.values()
        )
        assert found["dense"]["parameters"] - found["factored"]["parameters"] == saved
        assert found["dense"]["flops_per_token"] - found["factored"]["flops_per_token"] == 2 * saved
        assert found["factored"]["bytes"] == 2 * found["factored"]["parameters"]
        assert all(one[key] > 0 for one in found.values() for key in ("prefill", "decode"))

    def test_refuses_factors_of_another_model(self, workshop: Workshop) -> None:
        model = copy.deepcopy(workshop.model)
        wrong = {f"{module_names(2)[0]}.{side}": torch.zeros(3, 3) for side in ("left", "right")}
        with pytest.raises(InvalidValueError, match="do not fit"):
            install(model, wrong)


class TestTraining:
    def test_helps_on_the_text_it_sees_and_repeats(self, workshop: Workshop, library: LayerLibrary) -> None:
        factors = whitened(workshop)
        done = [workshop.train(factors, 2048, 3e-3, "training") for _ in range(2)]
        for name, one in done[0].factors.items():
            assert torch.equal(one.left, done[1].factors[name].left)
        outcome = done[0].outcome
        assert (outcome.tokens, outcome.distinct, outcome.stopped) == (2048, 256, "")
        assert sum(outcome.losses[-2:]) < sum(outcome.losses[:2])
        tokens = library.domains[0].evaluation
        assert loss(workshop, done[0].factors, tokens) < loss(workshop, factors, tokens)

    def test_of_no_tokens_changes_nothing(self, workshop: Workshop) -> None:
        factors = whitened(workshop)
        trained = workshop.train(factors, 0, 1e-3, "training")
        assert trained.outcome.tokens == 0 and trained_words(0, 0) == "training-free"
        assert all(torch.equal(one.left, factors[name].left) for name, one in trained.factors.items())

    def test_tokens_that_come_again_are_passes(self) -> None:
        """5 windows of 128, 4 a step: a pass leaves one out, so that two steps can have seen all of them."""
        model = _Fragile(breaks_after=100)
        windows = torch.zeros(5, 128, dtype=torch.long)
        half, all_of_it = (
            train(model, [([model.weight], 0.1)], windows, Budget(n, "x")) for n in (512, 5120)
        )
        assert (half.tokens, half.distinct) == (512, 512)
        assert trained_words(half.tokens, half.distinct) == "trained on 512 distinct tokens, 1.0 passes"
        assert (all_of_it.tokens, all_of_it.distinct) == (5120, 640)
        assert (
            trained_words(all_of_it.tokens, all_of_it.distinct)
            == "trained on 640 distinct tokens, 8.0 passes"
        )
        both = half.then(all_of_it)
        assert trained_words(both.tokens, both.distinct) == "trained on 640 distinct tokens, 8.8 passes"

    def test_a_loss_that_is_not_finite_keeps_the_last_good_state(self) -> None:
        model = _Fragile(breaks_after=3)
        outcome = train(
            model, [([model.weight], 0.1)], torch.zeros(8, 256, dtype=torch.long), Budget(10 * 512, "x")
        )
        assert "last good state" in outcome.stopped
        assert len(outcome.losses) == 3
        assert bool(torch.isfinite(model.weight).all())
        assert torch.equal(model.weight.detach(), model.seen[2])  # the parameters of the last finite loss

    def test_an_exploding_rate_leaves_finite_factors(self, workshop: Workshop) -> None:
        trained = workshop.train(whitened(workshop), 4096, 1e18, "training")
        assert trained.outcome.stopped
        assert all(bool(torch.isfinite(one.left).all()) for one in trained.factors.values())

    def test_can_be_cancelled_and_the_model_comes_back(self, workshop: Workshop) -> None:
        def cancel(label: str, tokens: int) -> None:
            raise Cancelled("cancelled")

        factors = whitened(workshop)
        with pytest.raises(Cancelled):
            dataclasses.replace(workshop, report=cancel).train(factors, 4096, 1e-3, "training")
        assert isinstance(workshop.model.get_submodule(module_names(2)[3]), torch.nn.Linear)


class _Fragile(torch.nn.Module):
    """Its loss is the mean of its weights, and NaN after some steps."""

    def __init__(self, breaks_after: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.seen: list[torch.Tensor] = []
        self._breaks_after = breaks_after

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        from types import SimpleNamespace

        self.seen.append(self.weight.detach().clone())
        bad = torch.nan if len(self.seen) > self._breaks_after else 1.0
        logits = self.weight.expand(*input_ids.shape, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0]) * bad
        return SimpleNamespace(logits=logits)


class TestBases:
    @pytest.mark.parametrize("metric", ["plain", "whitened"])
    def test_bases_add_up_to_the_layer(self, library: LayerLibrary, metric: str) -> None:
        for projection in ("k_proj", "up_proj", "down_proj"):
            weight = library.weight(1, projection)
            left, scales, right = split(weight, library.statistics(1, projection)["code.txt"], metric)
            assert torch.allclose((left * scales) @ right, weight.double(), atol=1e-6)
            assert (scales.diff() <= 1e-9).all()


class TestCommands:
    def test_decompose_prints_one_object_exports_and_measures(
        self,
        cache: None,
        small_model: Path,
        texts: tuple[str, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arguments = ["decompose", "--json", "--checkpoint", str(small_model), "--method", "whitened-svd"]
        arguments += ["--method", "plrd[members=1,tokens=256]", "--keep", "0.5", "--keep", "0.7", "--speed"]
        arguments += ["--domain", texts[0], "--domain", texts[1], "--target", texts[0], "--device", "cpu"]
        arguments += ["--calibration", "8x32", "--evaluation", "4x32", "--dtype", "float32"]
        arguments += ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
        assert main(arguments) == 0
        result = json.loads(capsys.readouterr().out)
        assert [one["share"] for one in result["methods"]] == [0.5, 0.5, 0.7, 0.7]
        assert [one["name"] for one in result["domains"]] == [
            "drama.txt",
            "code.txt",
        ]  # the target comes last
        assert all(one["perplexity"][0] == [None, None] for one in result["methods"])  # its step alone
        assert all(value > 1 for one in result["methods"] for value in one["perplexity"][1])
        free, trained = result["methods"][2:]
        assert (free["label"], free["tokens"], free["losses"]) == ("training-free", 0, [])
        assert trained["label"] == "trained on 256 distinct tokens, 1.0 passes" and trained["bwt"] is None
        assert trained["average_perplexity"] == pytest.approx(sum(trained["perplexity"][1]) / 2)
        assert result["speed"]["smaller"]["parameters"] < result["speed"]["dense"]["parameters"]
        assert (tmp_path / "out" / "config.json").is_file()
        card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
        assert "trained on 256 distinct tokens" in card and "install(model, load_file" in card

        assert main(["decompose", "--resume", result["run"], "--runs", str(tmp_path / "runs")]) == 0
        printed = capsys.readouterr().out
        assert "plrd[keep=0.7,members=1.0,tokens=256.0]:restart" in printed and "training-free" in printed

    def test_compare_one_layer(
        self,
        cache: None,
        small_model: Path,
        texts: tuple[str, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arguments = [
            "compare",
            "--checkpoint",
            str(small_model),
            "--domain",
            texts[0],
            "--block",
            "1",
            "--projection",
            "up_proj",
        ]
        arguments += [
            "--calibration",
            "8x32",
            "--evaluation",
            "4x32",
            "--runs",
            str(tmp_path),
            "--dtype",
            "float32",
        ]
        assert main([*arguments, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["shape"] == [48, 32] and result["readings"] and result["curves"]
        assert main(arguments) == 0
        assert "of this layer's output on code.txt" in capsys.readouterr().out

    def test_compare_the_whole_model(
        self,
        cache: None,
        small_model: Path,
        texts: tuple[str, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arguments = [
            "compare",
            "--checkpoint",
            str(small_model),
            "--domain",
            texts[0],
            "--keep",
            "0.6",
            "--runs",
            str(tmp_path),
        ]
        assert main([*arguments, "--calibration", "8x32", "--evaluation", "4x32", "--dtype", "float32"]) == 0
        printed = capsys.readouterr().out
        assert all(name in printed for name in ("wanda", "copal", "whitened-svd", "hybrid", "dense"))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["decompose", "--domain", "python-code", "--method", "lora"], "not known"),
            (["decompose", "--domain", "python-code", "--keep", "2"], "0 < keep <= 1"),
            (["decompose"], "needs a domain"),
            (["decompose", "--domain", "python-code", "--method", "svd:joint"], "names a strategy"),
            (["decompose", "--domain", "python-code", "--method", "wanda", "--speed"], "low rank"),
            (["decompose", "--domain", "python-code", "--target", "shakespeare"], "not among the domains"),
            (
                [
                    "decompose",
                    "--domain",
                    "python-code",
                    "--method",
                    "wanda",
                    "--keep",
                    "0.5",
                    "--keep",
                    "0.6",
                ],
                "one size a run",
            ),
            (["decompose", "--resume", "no-such-one"], "no run"),
            (
                ["run", "--domain", "python-code", "--method", "wanda:accumulate", "--steps", "last"],
                "the steps before",
            ),
            (["compare", "--block", "0"], "needs a domain"),
        ],
    )
    def test_bad_input_is_one_line_and_status_2(
        self, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--runs", str(tmp_path)]) == 2
        error = capsys.readouterr().err.strip()
        assert words in error and len(error.splitlines()) == 1

    def test_some_of_the_domains_cannot_be_the_targets(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = ["python-code", "shakespeare", "python-manual"]
        given = [part for name in names for part in ("--domain", name)]
        assert main(["decompose", *given, "--target", names[0], "--target", names[1]]) == 2
        assert "give one, or none for all of them" in capsys.readouterr().err
