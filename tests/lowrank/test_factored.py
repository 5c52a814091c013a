"""A real factored model: that it computes, learns, stops, measures itself, and comes back from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from copal_core.analysis import speed
from copal_core.analysis.layers.preferences import preferences
from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import module_names
from copal_core.cli.main import main
from copal_core.config import Protocol, Windows
from copal_core.errors import Cancelled, InvalidValueError, RunError
from copal_core.experiment import decomposing
from copal_core.experiment.evaluation import evaluate
from copal_core.export.factored import export_member, load_member
from copal_core.methods.decomposition import build_decomposition
from copal_core.methods.factored.bases import split
from copal_core.methods.factored.modules import factored_modules, install, replaced
from copal_core.methods.factored.training import Budget, train
from copal_core.methods.factored.workshop import Member, Workshop
from copal_core.statistics.library import GRAM, LayerLibrary, layer_library
from copal_core.store.decompositions import DecompositionConfig, Decompositions, DecompositionStore
from pages.shared import worker

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


@pytest.fixture
def workshop(library: LayerLibrary) -> Workshop:
    return Workshop(Backbone(library.checkpoint.folder, "cpu", "float32"), library, ["code.txt"])


@pytest.fixture(scope="module")
def computed(
    cache: None, small_model: Path, texts: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> DecompositionStore:
    """Masks, untrained and trained decompositions at 60 % of the bytes."""
    methods = (
        "wanda",
        "hybrid",
        "svd",
        "whitened-svd",
        "plrd[tokens=2048,rate=0.003]",
        "basel[tokens=1536,tuning=1024]",
    )
    config = DecompositionConfig(str(small_model), texts[:2], methods, (0.6,), texts[:1], PROTOCOL)
    store = Decompositions(tmp_path_factory.mktemp("decompositions")).create(config)
    decomposing.compute(store)
    return store


def whitened(workshop: Workshop, keep: float = 0.5) -> Member:
    return next(build_decomposition("whitened-svd", {}).family(workshop, keep))


def perplexity(workshop: Workshop, member: Member, domain: int = 0) -> float:
    windows = workshop.library.domains[domain].evaluation
    return evaluate(workshop.backbone, [windows], member.weights)[0].perplexity


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
        with pytest.raises(Cancelled):
            layer_library(library.checkpoint, texts[:1], other, GRAM, should_stop=lambda: True)

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
    def test_computes_what_the_merged_weights_compute(self, workshop: Workshop) -> None:
        member = whitened(workshop)
        model = workshop.backbone.causal_lm()
        tokens = workshop.library.domains[0].evaluation[:2]
        half = {name: one.in_half() for name, one in member.factors.items()}
        with torch.no_grad(), replaced(model, factored_modules(model, half, torch.float32)):
            logits = model(tokens).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        measured = evaluate(workshop.backbone, [tokens], member.weights)[0]
        assert float(loss) == pytest.approx(measured.nats / measured.tokens, rel=1e-4)
        assert isinstance(model.get_submodule(module_names(2)[0]), torch.nn.Linear)  # the old layer is back

    def test_counts_its_size_and_measures_its_speed(self, workshop: Workshop) -> None:
        member = whitened(workshop)
        found = speed.compare(workshop.backbone.causal_lm(), member.factors, prompt=16, written=4)
        saved = sum(48 * 32 * 3 + 32 * 32 * 2 + 16 * 32 * 2 for _ in range(2)) - sum(
            f.parameters for f in member.factors.values()
        )
        assert found["dense"]["parameters"] - found["factored"]["parameters"] == saved
        assert found["dense"]["flops_per_token"] - found["factored"]["flops_per_token"] == 2 * saved
        assert found["factored"]["bytes"] == 2 * found["factored"]["parameters"]
        assert all(one[key] > 0 for one in found.values() for key in ("prefill", "decode"))

    def test_comes_back_from_disk_in_three_lines_and_merged(self, workshop: Workshop, tmp_path: Path) -> None:
        member = whitened(workshop)
        folder = export_member(
            workshop.library.checkpoint, member, tmp_path / "out", {"code.txt": 3.0, "b": None}
        )
        tokens = workshop.library.domains[0].evaluation[:2]
        merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
        model = AutoModelForCausalLM.from_pretrained(workshop.library.checkpoint.folder, dtype=torch.float32)
        install(model, load_file(folder / "factors.safetensors"))
        with torch.no_grad():
            assert torch.allclose(model(tokens).logits, merged(tokens).logits, atol=1e-4)
        card = (folder / "README.md").read_text(encoding="utf-8")
        kept = (
            100 * sum(one.parameters for one in member.factors.values()) / (2 * (3 * 48 * 32 + 3 * 32 * 32))
        )
        assert (
            f"Kept {kept:.3g} % of the bytes of the linear layers: 14 of 14 as factors of rank 5 to 9;"
            in card
        )
        assert "install(model, load_file" in card and "| code.txt | 3.00 |" in card and "| b | - |" in card
        with pytest.raises(RunError, match="not empty"):
            export_member(workshop.library.checkpoint, member, tmp_path / "out")

    def test_refuses_factors_of_another_model(self, workshop: Workshop) -> None:
        model = AutoModelForCausalLM.from_pretrained(workshop.library.checkpoint.folder)
        wrong = {f"{module_names(2)[0]}.{side}": torch.zeros(3, 3) for side in ("left", "right")}
        with pytest.raises(InvalidValueError, match="do not fit"):
            install(model, wrong)


class TestTraining:
    def test_helps_on_the_text_it_sees_and_repeats(self, workshop: Workshop) -> None:
        member = whitened(workshop)
        done = [workshop.train(member.factors, 4096, 3e-3, "training") for _ in range(2)]
        for name, one in done[0].factors.items():
            assert torch.equal(one.left, done[1].factors[name].left)
        assert done[0].outcome.tokens == 4096 and not done[0].outcome.stopped
        assert sum(done[0].outcome.losses[-2:]) < sum(done[0].outcome.losses[:2])
        assert perplexity(workshop, workshop.member("trained", 0.5, done[0])) < perplexity(workshop, member)

    def test_of_no_tokens_changes_nothing(self, workshop: Workshop) -> None:
        member = whitened(workshop)
        trained = workshop.train(member.factors, 0, 1e-3, "training")
        assert trained.factors == dict(member.factors) and trained.outcome.tokens == 0
        assert workshop.member("x", 0.5, trained).label == "training-free"

    def test_tokens_that_come_again_are_passes(self) -> None:
        """5 windows of 128, 4 a step: a pass leaves one out, so that two steps can have seen all of them."""
        model = _Fragile(breaks_after=100)
        windows = torch.zeros(5, 128, dtype=torch.long)
        half, all_of_it = (
            train(model, [([model.weight], 0.1)], windows, Budget(n, "x")) for n in (512, 5120)
        )
        assert (half.tokens, half.distinct) == (512, 512)
        assert half.in_words() == "trained on 512 distinct tokens, 1.0 passes"
        assert (all_of_it.tokens, all_of_it.distinct) == (5120, 640)
        assert all_of_it.in_words() == "trained on 640 distinct tokens, 8.0 passes"
        assert half.then(all_of_it).in_words() == "trained on 640 distinct tokens, 8.8 passes"

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
        trained = workshop.train(whitened(workshop).factors, 4096, 1e18, "training")
        assert trained.outcome.stopped
        assert all(bool(torch.isfinite(one.left).all()) for one in trained.factors.values())

    def test_can_be_cancelled_and_the_model_comes_back(self, workshop: Workshop) -> None:
        member, model = whitened(workshop), workshop.backbone.causal_lm()
        workshop.should_stop = lambda: True
        with pytest.raises(Cancelled):
            workshop.train(member.factors, 4096, 1e-3, "training")
        assert isinstance(model.get_submodule(module_names(2)[3]), torch.nn.Linear)


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


class TestDecompositions:
    def test_measure_every_member_on_every_domain(self, computed: DecompositionStore) -> None:
        result = computed.result()
        assert result["status"] == "done" and set(result["dense"]) == {"code.txt", "drama.txt"}
        by_method = {member["method"]: member for member in result["members"]}
        assert len(result["members"]) == 7  # plrd has two sizes
        for member in result["members"]:
            assert set(member["perplexity"]) == {"code.txt", "drama.txt"} and member["bytes"] > 0
        allowed = 0.6 * result["projections"]["bytes"]
        assert all(m["bytes"] <= allowed * 1.01 for m in by_method.values())
        # 0.6 of the bytes: factors keep so many parameters, a mask fewer, for its index takes room too
        assert all(m["parameters"] <= 0.6 * result["projections"]["parameters"] for m in by_method.values())
        assert {"rank", "mask"} & by_method["hybrid"]["kinds"].keys()
        assert by_method["svd"]["label"] == "training-free"
        # the target has 8 windows of 32 tokens: 8 passes for plrd's last size; basel's rounds see the same text again
        plrd, basel = (by_method[name] for name in by_method if name.startswith(("plrd", "basel")))
        assert plrd["label"] == "trained on 256 distinct tokens, 8.0 passes"
        assert basel["label"] == "trained on 256 distinct tokens, 10.0 passes"
        assert (basel["tokens"], basel["distinct_tokens"]) == (1536 + 1024, 256)

    def test_training_beats_the_untrained_on_its_target(self, computed: DecompositionStore) -> None:
        found = {
            m["method"].partition("[")[0]: m["perplexity"]["code.txt"] for m in computed.result()["members"]
        }
        assert found["plrd"] < found["whitened-svd"]
        assert found["basel"] < found["svd"]

    def test_basels_bases_are_told(self, computed: DecompositionStore) -> None:
        member = next(m for m in computed.result()["members"] if m["method"].startswith("basel"))
        layers = json.loads((computed.member_folder(member["name"]) / "bases.json").read_text())
        assert len(layers) == 14
        for one in layers:
            assert len(one["kept"]) == len(one["after"]) < len(one["before"])
            rank = len(one["kept"]) + one["added"]
            size = {"q_proj": (32, 32), "o_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32)}
            rows, columns = size.get(one["projection"], (48, 32))
            assert rank * (rows + columns) <= 0.6 * rows * columns

    @pytest.mark.parametrize("metric", ["plain", "whitened"])
    def test_bases_add_up_to_the_layer(self, library: LayerLibrary, metric: str) -> None:
        for projection in ("k_proj", "up_proj", "down_proj"):
            weight = library.weight(1, projection)
            left, scales, right = split(weight, library.statistics(1, projection)["code.txt"], metric)
            assert torch.allclose((left * scales) @ right, weight.double(), atol=1e-6)
            assert (scales.diff() <= 1e-9).all()

    def test_the_speed_of_a_member_stands_beside_the_dense_models(
        self, computed: DecompositionStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COPAL_RUNS", str(computed.folder.parent.parent))
        found = worker.measure_member(computed.id, "whitened-svd-0.600")
        assert found["factored"]["bytes"] < found["dense"]["bytes"]
        assert found["factored"]["flops_per_token"] < found["dense"]["flops_per_token"]
        assert all(found[one][rate] > 0 for one in ("dense", "factored") for rate in ("prefill", "decode"))

    def test_a_member_opens_again(self, computed: DecompositionStore, library: LayerLibrary) -> None:
        entry, member = load_member(computed, "whitened-svd-0.600")
        backbone = Backbone(library.checkpoint.folder, "cpu", "float32")
        found = evaluate(backbone, [library.domains[0].evaluation], member.weights)[0].perplexity
        assert found == pytest.approx(entry["perplexity"]["code.txt"], rel=1e-3)
        with pytest.raises(RunError, match="no factors"):
            load_member(computed, "wanda-0.600")

    def test_computing_again_computes_nothing(self, computed: DecompositionStore) -> None:
        before = computed.result()
        told: list[dict[str, Any]] = []
        decomposing.compute(computed, told.append)
        assert computed.result() == before
        assert not [event for event in told if event["event"] == "member"]

    def test_everything_kept_and_nothing_trained_changes_nothing(
        self, cache: None, small_model: Path, texts: tuple[str, ...], tmp_path: Path
    ) -> None:
        methods = (
            "basel[tokens=0,tuning=0]",
            "basel[metric=whitened,tokens=0,tuning=0]",
            "plrd[tokens=0]",
            "svd",
            "whitened-svd",
        )
        config = DecompositionConfig(str(small_model), texts[:1], methods, (1.0,), (), PROTOCOL)
        store = Decompositions(tmp_path).create(config)
        decomposing.compute(store)
        result = store.result()
        for member in result["members"]:
            assert member["perplexity"]["code.txt"] == pytest.approx(result["dense"]["code.txt"], rel=1e-5), (
                member["method"]
            )
            assert member["label"] == "training-free"
            assert member["bytes"] == result["projections"]["bytes"]

    def test_cancel_keeps_what_is_finished(
        self, cache: None, small_model: Path, texts: tuple[str, ...], tmp_path: Path
    ) -> None:
        config = DecompositionConfig(
            str(small_model), texts[:1], ("svd", "whitened-svd"), (0.5,), (), PROTOCOL
        )
        store = Decompositions(tmp_path).create(config)

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "member":
                store.request_cancel()

        with pytest.raises(Cancelled):
            decomposing.compute(store, watch)
        assert store.state().status == "cancelled" and len(store.result()["members"]) == 1
        store.clear_cancel()
        decomposing.compute(store)
        assert [m["method"] for m in store.result()["members"]] == ["svd", "whitened-svd"]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"keep": (1.5,)}, "0 < keep <= 1"),
            ({"targets": ("other",)}, "not among the domains"),
            ({"methods": ()}, "needs a domain"),
            ({"methods": ("svd:restart",)}, "names a strategy"),
        ],
    )
    def test_a_wrong_configuration_is_refused(self, change: dict[str, Any], words: str) -> None:
        values: dict[str, Any] = {"checkpoint": "x", "domains": ("a",), "methods": ("svd",), **change}
        with pytest.raises(InvalidValueError, match=words):
            DecompositionConfig(**values)

    @pytest.mark.parametrize("name", ["../../etc", "short", "no-such-decomposition"])
    def test_an_unknown_id_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises((RunError, InvalidValueError)):
            Decompositions(tmp_path).open(name)


class TestCommands:
    def test_decompose_prints_one_object_and_exports(
        self,
        cache: None,
        small_model: Path,
        texts: tuple[str, ...],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        code = main(
            [
                "decompose",
                "--json",
                "--checkpoint",
                str(small_model),
                "--domain",
                texts[0],
                "--method",
                "whitened-svd",
            ]
            + [
                "--keep",
                "0.5",
                "--keep",
                "0.7",
                "--calibration",
                "8x32",
                "--evaluation",
                "4x32",
                "--runs",
                str(tmp_path / "r"),
            ]
            + ["--out", str(tmp_path / "out"), "--device", "cpu", "--dtype", "float32"]
        )
        result = json.loads(capsys.readouterr().out)
        assert code == 0 and [m["asked"] for m in result["members"]] == [0.5, 0.7]
        assert (tmp_path / "out" / "merged" / "config.json").is_file()

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
            (["decompose", "--resume", "no-such-one"], "no decomposition"),
            (["compare", "--block", "0"], "needs a domain"),
        ],
    )
    def test_bad_input_is_one_line_and_status_2(
        self, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--runs", str(tmp_path)]) == 2
        error = capsys.readouterr().err.strip()
        assert words in error and len(error.splitlines()) == 1
