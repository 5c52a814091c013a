"""What is written shard by shard is what transformers loads, and never more than a shard is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from copal_core.checkpoints import locate
from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.checkpoints.writer import ShardWriter, write_checkpoint


@torch.no_grad()
def logits(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return model(input_ids=torch.arange(1, 30)[None]).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [10_000, 10**9])
def test_the_same_model_comes_back(
    make_model: Callable[..., Path], tmp_path: Path, tied: bool, shard_bytes: int
) -> None:
    folder = make_model(tie_word_embeddings=tied, attention_bias=True)
    backbone = Backbone(folder, "cpu", "float32", keep_blocks=False)
    write_checkpoint(backbone, tmp_path, lambda index, block: {}, True, shard_bytes)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    if shard_bytes > 10_000:
        assert shards == ["model.safetensors"]
    else:
        assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(shards)
        assert index["metadata"]["total_size"] == 4 * index["metadata"]["total_parameters"]
    assert torch.equal(logits(tmp_path), logits(folder))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "float32"
    assert (tmp_path / "generation_config.json").is_file()


def test_removed_weights_stay_in_the_stored_format(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.conftest import SIZES

    torch.manual_seed(0)
    folder = make_model(LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16())
    backbone = Backbone(folder, "cpu", "float32", keep_blocks=False)

    def without_up(index: int, block: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {"up_proj": torch.zeros_like(linears(block)["up_proj"].weight)}

    for lossless, name in ((True, "bfloat16"), (False, "float32")):
        out = tmp_path / name
        out.mkdir()
        write_checkpoint(backbone, out, without_up, lossless)
        for path in folder.glob("tokenizer*"):
            (out / path.name).write_bytes(path.read_bytes())
        assert locate(str(out)).describe().stored_dtype == name
    torch.testing.assert_close(logits(tmp_path / "bfloat16"), logits(tmp_path / "float32"), rtol=0, atol=0)


def test_a_shard_is_written_as_soon_as_it_is_full(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 4000)
    for number in range(5):
        writer.add(f"t{number}", torch.full((500,), float(number)))  # 2000 bytes each
        assert len(list(tmp_path.iterdir())) == number // 2
    writer.finish()
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
