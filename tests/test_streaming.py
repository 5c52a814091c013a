"""A model visited block by block computes, writes and remembers the same bytes as one that stays in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from copal_core.checkpoints import residence
from copal_core.checkpoints.backbone import Backbone, compute_dtype, linears
from copal_core.checkpoints.readers import PinnedReader
from copal_core.checkpoints.weights import WeightFiles
from copal_core.config import RunConfig, Structure, Windows
from copal_core.errors import CheckpointError, InvalidValueError, RunError
from copal_core.experiment import loop
from copal_core.experiment.evaluation import token_losses
from copal_core.statistics.activations import SpillFile
from copal_core.statistics.blockwise import HiddenStates
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs

METHODS = ["copal:accumulate", "sparsegpt:sequential", "wanda:joint", "whitened-svd:accumulate"]


@pytest.fixture(scope="module")
def narrow_model(make_model: Callable[..., Path]) -> Path:
    """Stored as bfloat16 in several shards, untied, so that everything is widened where it computes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import SIZES

    torch.manual_seed(0)
    sizes = {**SIZES, "tie_word_embeddings": False, "num_hidden_layers": 3}
    return make_model(LlamaForCausalLM(LlamaConfig(**sizes)).bfloat16(), max_shard_size="20KB")


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(1, 300, (3, 40), generator=torch.Generator().manual_seed(0))


def narrow_config(small_config: Callable[..., RunConfig], folder: Path, dtype: str) -> RunConfig:
    config = small_config(METHODS, dtype=dtype, calibration=Windows.parse("4x24"))
    return RunConfig(**{**config.model_dump(), "checkpoint": str(folder)})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_streamed_run_is_the_same_bytes_as_a_resident_one(
    narrow_model: Path,
    small_config: Callable[..., RunConfig],
    runs: Runs,
    same_outcome: Callable[[RunStore, RunStore], None],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
) -> None:
    config = narrow_config(small_config, narrow_model, dtype)
    opened: list[Backbone] = []
    inside = Backbone.__init__

    def seen(self: Backbone, *arguments: Any, **options: Any) -> None:
        inside(self, *arguments, **options)
        opened.append(self)

    monkeypatch.setattr(Backbone, "__init__", seen)
    resident, streamed = runs.create(config), runs.create(config)
    loop.run(resident)
    monkeypatch.setenv(residence.LIMIT, "1")  # nothing stays: blocks visit, activations lie in a file
    loop.run(streamed)
    assert [backbone.keeps_blocks for backbone in opened] == [True, False]
    assert HiddenStates(opened[1], [torch.ones((1, 4), dtype=torch.long)]).activations.on_disk
    same_outcome(streamed, resident)


@pytest.mark.parametrize("structure", [Structure(), Structure(group="layer"), Structure.parse("2:4")])
def test_large_layers_are_worked_on_in_parts_to_the_same_bytes(
    small_config: Callable[..., RunConfig],
    runs: Runs,
    same_outcome: Callable[[RunStore, RunStore], None],
    monkeypatch: pytest.MonkeyPatch,
    structure: Structure,
) -> None:
    config = small_config(
        ["copal:accumulate", "sparsegpt:restart", "wanda:sequential"], 2, structure, map_size=8
    )
    whole, parts = runs.create(config), runs.create(config)
    loop.run(whole)
    monkeypatch.setattr("copal_core.methods.criterion._SCORED_AT_ONCE", 5 * 32)
    monkeypatch.setattr("copal_core.methods.masks._SELECTED_AT_ONCE", 7 * 32)
    monkeypatch.setattr("copal_core.compression.recording._COUNTED_AT_ONCE", 9 * 32)
    loop.run(parts)
    same_outcome(parts, whole)


@pytest.mark.parametrize("keep", [True, False])
def test_token_losses_do_not_depend_on_what_stays(
    narrow_model: Path, windows: torch.Tensor, keep: bool
) -> None:
    expected = token_losses(Backbone(narrow_model, "cpu", "float32", True), [windows])[0]
    backbone = Backbone(narrow_model, "cpu", "float32", keep)
    for _ in range(2):
        assert torch.equal(token_losses(backbone, [windows])[0], expected)


def test_a_visiting_block_takes_no_memory_of_its_own(narrow_model: Path) -> None:
    backbone = Backbone(narrow_model, "cpu", "float32", keep_blocks=False)
    with backbone.block(1) as block:
        assert {layer.weight.dtype for layer in linears(block).values()} == {torch.bfloat16}
        assert compute_dtype(block) == torch.float32
        stored = backbone.files.view("model.layers.1.mlp.up_proj.weight")
        assert linears(block)["up_proj"].weight.data_ptr() == stored.data_ptr()
    assert all(parameter.is_meta for parameter in block.parameters())
    with Backbone(narrow_model, "cpu", "float32", keep_blocks=True).block(1) as block:
        assert {parameter.dtype for parameter in block.parameters()} == {torch.float32}


def test_the_next_block_is_read_ahead(narrow_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(WeightFiles, "prefetch", lambda self, prefix: asked.append(prefix))
    backbone = Backbone(narrow_model, "cpu", "float32", keep_blocks=False)
    for index in range(3):
        with backbone.block(index):
            pass
    backbone._reader(0)._thread.shutdown(wait=True)
    assert asked == ["model.layers.1.", "model.layers.2.", "model.layers.0."]


def test_what_is_computed_with_a_view_never_reaches_the_file(narrow_model: Path) -> None:
    files = WeightFiles(narrow_model)
    before = files.view("model.norm.weight").clone()
    files.view("model.norm.weight").zero_()
    assert torch.equal(WeightFiles(narrow_model).view("model.norm.weight"), before)


def test_released_pages_are_read_again(narrow_model: Path) -> None:
    files = WeightFiles(narrow_model)
    view = files.view("model.embed_tokens.weight")
    before = view.clone()
    files.prefetch("model.embed_tokens.")
    files.release("model.embed_tokens.")
    assert torch.equal(view, before)


def test_the_page_locked_way_brings_the_same_tensors(narrow_model: Path) -> None:
    files = WeightFiles(narrow_model)
    reader = PinnedReader(files, torch.float32, torch.device("cpu"))
    reader.read_ahead(2)  # asked for and then not taken: another pass began
    for index in (0, 1, 2, 0):
        found = reader.take(index, keep=False)
        reader.read_ahead((index + 1) % 3)
        expected = files.read(f"model.layers.{index}.", "cpu", torch.float32)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_tables_of_old_checkpoints_are_passed_over(make_model: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_model()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with Backbone(folder, "cpu", "float32").block(0) as block:
        assert linears(block)["q_proj"].weight.shape == (32, 32)


def test_tensors_of_another_shape_are_refused(make_model: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_model()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.ones(300, 16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.embed_tokens.* do not fit config.json"):
        Backbone(folder, "cpu", "float32")


def test_the_limit_is_a_number(narrow_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(residence.LIMIT, "much")
    with pytest.raises(InvalidValueError, match="COPAL_MEMORY_BYTES = 'much'"):
        Backbone(narrow_model, "cpu", "float32")


def test_a_disk_without_room_for_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("copal_core.statistics.activations.os.posix_fallocate", full)
    with pytest.raises(RunError, match=r"activations need 0\.0 GB of disk.*fewer windows"):
        SpillFile(4096)
