"""The public interface: `import copal_core as copal` from a notebook or a script."""

from __future__ import annotations

import copy
import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import copal_core as copal
from copal_core.config import RunConfig
from copal_core.errors import Cancelled
from copal_core.figures.by_name import FIGURES
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from tests.conftest import SENTENCES, SIZES

QUICK: dict[str, Any] = {"calibration": "3x24", "evaluation": "2x24", "map_size": 8, "progress": False}


@pytest.fixture(scope="module")
def held(small_model: Path) -> tuple[Any, Any]:
    """A model and its tokenizer, as a notebook holds them. Not to be changed."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(small_model), AutoTokenizer.from_pretrained(small_model)


@pytest.fixture(scope="module")
def documents() -> dict[str, list[str]]:
    """Two domains of documents in memory."""
    return {
        name.partition(".")[0]: [text.format(i * 7919 % 1009, i * i % 4093) for i in range(200)]
        for name, text in SENTENCES.items()
        if name != "terms.txt"
    }


@pytest.fixture(scope="module")
def pruned(
    held: tuple[Any, Any], documents: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> copal.Pruned:
    """The model in memory, pruned for both domains in memory."""
    root = tmp_path_factory.mktemp("runs")
    return copal.prune(*held, domains=documents, sparsity=0.4, runs=root, **QUICK)


def test_a_dozen_names_and_no_more() -> None:
    assert dir(copal) == sorted(copal.__all__) and len(copal.__all__) == 12
    assert all(getattr(copal, name).__doc__ for name in copal.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        _ = copal.prunes  # type: ignore[attr-defined]


def test_importing_it_is_light() -> None:
    script = (
        "import sys, copal_core as copal\nassert 'copal_core.interface' not in sys.modules\n"
        "copal.prune, copal.RunConfig, copal.Run\n"
        "heavy = {'torch', 'pandas', 'plotly', 'transformers', 'tqdm'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", copal.__all__)
def test_the_examples_of_the_docstrings(name: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctest.DocTestFinder(recurse=False).find(getattr(copal, name), name, globs={})
    assert found[0].examples
    results = doctest.DocTestRunner().run(found[0])
    assert results.failed == 0 and results.attempted > 1


def test_a_model_in_memory_is_pruned_and_left_alone(
    held: tuple[Any, Any], documents: Any, runs: Runs
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).train()
    before, config = (
        {name: value.clone() for name, value in model.state_dict().items()},
        model.config.to_dict(),
    )
    made = copal.prune(model, held[1], domains=documents, sparsity=0.4, **QUICK)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.config.to_dict() == config
    assert made.model is not model and type(made.model) is type(model)
    assert runs.list()[0].id == made.run.id
    assert made.run.domains == ["code.jsonl", "drama.jsonl"]


def test_the_masks_are_the_zeros_of_the_model(held: tuple[Any, Any], pruned: copal.Pruned) -> None:
    dense = dict(held[0].named_modules())
    assert len(pruned.masks) == 14  # seven projections of two blocks
    for name, kept in pruned.masks.items():
        weight = pruned.model.get_submodule(name).weight
        assert weight.equal(dense[name].weight * kept)
        assert float((~kept).float().mean()) == pytest.approx(0.4, abs=0.02)
    untouched = {name for name, _ in held[0].named_parameters()} - {f"{name}.weight" for name in pruned.masks}
    for name in untouched:
        assert pruned.model.get_parameter(name).equal(held[0].get_parameter(name)), name


def test_a_method_that_changes_weights_gives_those_it_evaluated(
    held: tuple[Any, Any], documents: Any, runs: Runs
) -> None:
    made = copal.prune(*held, domains=documents, method="sparsegpt:accumulate", **QUICK)
    code = copal.perplexity(
        made.model, held[1], {"code": documents["code"]}, calibration="3x24", evaluation="2x24"
    )
    table = made.run.perplexity
    last = table[(table["step"] == 2) & (table["domain"] == "code.jsonl")]["perplexity"].item()
    assert code == pytest.approx(last, rel=1e-4)
    name = "model.layers.0.mlp.up_proj"
    kept, weight = made.masks[name], made.model.get_submodule(name).weight
    assert not weight[kept].equal(held[0].get_submodule(name).weight[kept])
    assert bool((weight[~kept] == 0).all())


def test_earlier_steps_and_what_makes_no_masks(held: tuple[Any, Any], documents: Any, runs: Runs) -> None:
    made = copal.run(
        checkpoint=held[0],
        tokenizer=held[1],
        domains=documents,
        methods=["wanda:restart", "svd:joint"],
        **QUICK,
    )
    first, second = made.pruned("wanda:restart", step=1), made.pruned("wanda:restart")
    assert second.step == 2 and any(not first.masks[name].equal(second.masks[name]) for name in first.masks)
    with pytest.raises(copal.CopalError, match="makes factors and no masks"):
        _ = made.pruned("svd:joint").masks
    with pytest.raises(copal.CopalError, match="choose one of wanda:restart, svd:joint"):
        made.pruned()
    with pytest.raises(copal.CopalError, match="step 3 is not in run .* choose 1 to 2"):
        made.pruned("wanda:restart", 3)


def test_one_model_is_one_checkpoint(
    held: tuple[Any, Any], pruned: copal.Pruned, documents: Any, runs: Runs
) -> None:
    """Two runs of one model in memory compare; another weight anywhere makes another checkpoint."""
    again = copal.prune(*held, domains=documents, sparsity=0.4, **QUICK)
    assert again.run.config == pruned.run.config and again.run.id != pruned.run.id
    changed = copy.deepcopy(held[0])
    changed.model.layers[0].mlp.up_proj.weight.data[5, 7] += 1
    other = copal.prune(changed, held[1], domains=documents, sparsity=0.4, **QUICK)
    assert other.run.config.checkpoint != pruned.run.config.checkpoint


def test_perplexity_is_the_run_s(
    held: tuple[Any, Any], pruned: copal.Pruned, documents: Any, small_model: Path
) -> None:
    table = pruned.run.perplexity
    measured = table[(table["method"] == "dense") & (table["domain"] == "drama.jsonl")]["perplexity"].item()
    windows: dict[str, Any] = {"calibration": "3x24", "evaluation": "2x24"}
    model = copy.deepcopy(held[0]).train()
    assert copal.perplexity(model, held[1], documents["drama"], **windows) == pytest.approx(
        measured, rel=1e-5
    )
    assert model.training
    named = copal.perplexity(
        str(small_model), None, documents["drama"], dtype="float32", device="cpu", **windows
    )
    assert named == pytest.approx(measured, rel=1e-5)
    joined = "".join(documents["drama"])  # one text of several lines, not the name of a domain
    assert copal.perplexity(*held, joined, **windows) > 1
    assert copal.perplexity(*held, documents["drama"], seed=1, **windows) != pytest.approx(measured, rel=1e-5)


def test_a_run_has_tables(pruned: copal.Pruned) -> None:
    run = copal.open_run(pruned.run.id, runs=pruned.run.folder.parent)
    assert run.status == "done" and run.methods == ["copal:accumulate"]
    assert len(run.perplexity) == 2 + 4 and len(run.layers) == 2 * 14
    assert list(run.stasis["step"]) == [2] and list(run.summary["method"]) == run.methods
    assert run.result()["methods"][0]["average_perplexity"] == pytest.approx(run.summary["average"].item())
    assert "seed 0" in run.protocol and run.protocol in repr(run)
    with pytest.raises(copal.CopalError, match="table 'perplexities' is not known; known: .*perplexity"):
        run.table("perplexities")
    listed = copal.list_runs(runs=run.folder.parent)
    assert run.id in list(listed["id"])


@pytest.fixture(scope="module")
def every_method(finished: Callable[[str, str], RunStore]) -> copal.Run:
    """Every criterion with every strategy over three domains."""
    store = finished("unstructured", "pruned")
    return copal.open_run(store.id, runs=store.folder.parent)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_plotly_figures_with_data(name: str, every_method: copal.Run) -> None:
    import plotly.graph_objects as go

    taken = FIGURES[name][1]
    choices = {"method": "wanda:accumulate", "step": 2, "domain": every_method.domains[1]}
    figure = every_method.figure(name, **{choice: choices[choice] for choice in taken})
    assert isinstance(figure, go.Figure) and len(figure.data)
    numbers = {"bar": "x", "scatter": "y", "heatmap": "z"}
    maps = [trace for trace in figure.data if trace.type == "heatmap"]  # what lies on a map only marks cells
    for trace in maps or figure.data:
        values = trace.link.value if trace.type == "sankey" else trace[numbers[trace.type]]
        assert np.isfinite(np.asarray(values, dtype=float)).any()


def test_figures_follow_the_choices(every_method: copal.Run) -> None:
    first, second = (every_method.figure("sensitivity", method="wanda:restart", step=step) for step in (1, 2))
    assert not np.array_equal(first.data[0].z, second.data[0].z)
    refused = {
        "figure 'staisis' is not known; known: .*stasis": lambda: every_method.figure("staisis"),
        "figure 'stasis' has no choice 'step'; its choices: none": lambda: every_method.figure(
            "stasis", step=1
        ),
        "several methods; choose one of": lambda: every_method.figure("matrix"),
        "domain 'poems' is not in run": lambda: every_method.figure("perplexity", domain="poems"),
    }
    for sentence, asked in refused.items():
        with pytest.raises(copal.CopalError, match=sentence):
            asked()


def test_a_figure_without_data_says_so(held: tuple[Any, Any], documents: Any, runs: Runs) -> None:
    single = copal.prune(*held, domains=[documents["code"]], **QUICK).run
    for name in ("stasis", "moves", "overlap", "transfer"):
        with pytest.raises(copal.CopalError, match=f"recorded nothing that figure '{name}' shows"):
            single.figure(name)
    assert len(single.figure("average").data)


def test_export_and_report(pruned: copal.Pruned, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    written = pruned.run.export(tmp_path / "out")
    assert set(written["domains"]) == {"code.jsonl", "drama.jsonl"}
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    name = "model.layers.1.self_attn.o_proj"
    assert reloaded.get_submodule(name).weight.equal(pruned.model.get_submodule(name).weight)
    assert "Stasis by step" in pruned.run.report(tmp_path / "report.html").read_text(encoding="utf-8")


def test_progress_and_resume(
    held: tuple[Any, Any], documents: Any, runs: Runs, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = []

    def stop_at_the_first_block(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "block":
            runs.open(runs.list()[0].id).request_cancel()

    with pytest.raises(Cancelled):
        copal.prune(*held, domains=documents, **{**QUICK, "progress": stop_at_the_first_block})
    assert [event["event"] for event in events] == ["evaluated", "block", "cancelled"]
    run = copal.open_run(copal.list_runs()["id"][0])
    assert run.status == "cancelled"
    capfd.readouterr()
    assert run.resume(progress=False).status == "done"
    assert "%" not in capfd.readouterr().err
    assert len(run.pruned().masks) == 14
    run.resume()  # nothing is left to compute; the bar is shown
    assert "100%" in capfd.readouterr().err
    with pytest.raises(copal.CopalError, match="is a recorded run"):
        copal.open_run("recorded-smollm2-135m").resume()


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=32))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"method": "wonder:restart"}, "'wonder' is not known; known: copal"),
        ({"method": "copal:forever"}, "strategy 'forever' is not known; known: accumulate"),
        ({"method": "copal"}, "method 'copal' is not of the form NAME:STRATEGY"),
        ({"sparsity": 1.5}, "sparsity = 1.5 is not valid"),
        ({"structure": "2:4", "sparsity": 0.3}, "sparsity 0.3 does not go with structure 2:4"),
        ({"calibration": "many"}, "windows 'many' are not of the form COUNTxLENGTH"),
        ({"sede": 1}, "'sede' is not a setting"),
        ({"domains": ()}, "domains = .* is not valid"),
        ({"domains": ["pyton-code"]}, "did you mean 'python-code'"),
        ({"domains": {"mail": ["", " "]}}, "domain 'mail' holds no text"),
        ({"domains": [[]]}, "domain 'texts-1' holds no text"),
        ({"domains": [[b"bytes"]]}, "document 1 of domain 'texts-1' is bytes"),
        ({"domains": {"../mail": ["text"]}}, "domain name '../mail' is not valid"),
        ({"domains": {"mail": ["too short"]}}, "domain 'mail.jsonl' holds .* bytes of text"),
        ({"tokenizer": None}, "LlamaForCausalLM in memory has no tokenizer"),
        ({"model": "tiny"}, "checkpoint 'tiny' brings its own tokenizer"),
        ({"model": 7}, "model is a int; give a LlamaForCausalLM"),
        ({"model": _gpt2}, "GPT2LMHeadModel.* not a LLaMA architecture"),
        ({"model": "no-such", "tokenizer": None}, "'no-such' does not exist"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    changed: dict[str, Any], sentence: str, held: tuple[Any, Any], documents: Any, runs: Runs
) -> None:
    asked = {"model": held[0], "tokenizer": held[1], "domains": documents, **QUICK, **changed}
    asked["model"] = asked["model"]() if asked["model"] is _gpt2 else asked["model"]
    with pytest.raises(copal.CopalError, match=sentence) as caught:
        copal.prune(**asked)
    assert "\n" not in str(caught.value)
    assert not [run for run in runs.list() if run.status == "done"]


def test_a_configuration_is_enough(small_config: Callable[..., RunConfig], runs: Runs) -> None:
    config = small_config(["magnitude:restart"], domains=1)
    assert copal.run(config, progress=False, title="mine").config == config
    assert runs.list()[0].title == "mine"
    with pytest.raises(copal.CopalError, match="'seed' is given beside a configuration"):
        copal.run(config, seed=3)
