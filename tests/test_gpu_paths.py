"""What a GPU would do, as far as a machine without one can tell: the same code on a processor, and its decisions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from copal_core.analysis import semi_structured
from copal_core.checkpoints import devices, placement
from copal_core.checkpoints.backbone import Backbone
from copal_core.errors import CheckpointError
from copal_core.system.torch_settings import add_product, exact_products, factor_dtype


@pytest.fixture
def skeleton() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=6,
                num_attention_heads=4,
                vocab_size=100,
            )
        )


def size_of(model: torch.nn.Module) -> int:
    return 2 * sum(parameter.numel() for parameter in model.parameters())


def test_statistics_are_never_rounded_to_tf32() -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        products.fp32_precision = "tf32"
        with exact_products():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "tf32"  # what the user allowed comes back
        with pytest.raises(ZeroDivisionError), exact_products():
            1 / 0  # noqa: B018
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before


def test_calibration_multiplies_exactly(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from copal_core.statistics import accumulators
    from copal_core.statistics.blockwise import HiddenStates

    seen: set[str] = set()

    def watching(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        seen.add(torch.backends.cuda.matmul.fp32_precision)
        add_product(total, left, right)

    monkeypatch.setattr(accumulators, "add_product", watching)
    backbone = Backbone(small_model, "cpu", "float32")
    with backbone.block(0) as block:
        windows = torch.ones((1, 8), dtype=torch.long)
        HiddenStates(backbone, [windows]).calibrate(block, (accumulators.InputGram(),), advance=False)
    assert seen == {"ieee"}


def test_products_of_16_bits_are_summed_in_float32() -> None:
    left, right = torch.full((4096, 1), 1.0).bfloat16(), torch.full((4096, 1), 1.0).bfloat16()
    total = torch.zeros(1, 1)
    add_product(total, left, right)
    assert total.item() == 4096  # bfloat16 sums would stop growing at 256
    assert factor_dtype(left) == torch.float32  # 16-bit factors are multiplied as they are on a GPU alone


def test_two_of_four_keeps_the_larger_half() -> None:
    kept = semi_structured.two_of_four(torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.0, 0.0, 0.0, 5.0]]))
    assert kept[0, :4].tolist() == [False, True, False, True]
    assert kept[0, 4:].sum() == 2 and bool(kept[0, 7])


def test_kernels_are_measured_beside_dense_and_say_why_not() -> None:
    (one,) = semi_structured.compare({"up_proj": (32, 16)}, 4, "cpu", torch.float32)
    assert one.dense > 0 and one.sparse is None and one.ratio is None
    assert "CUDA" in one.why_not
    assert semi_structured.SparseSpeed("q", 1, 1, 1, 3.0, 2.0, 0.0).ratio == 1.5


def test_whole_blocks_are_spread_over_gpus(skeleton: torch.nn.Module) -> None:
    size = size_of(skeleton)
    found = placement.spread(skeleton, torch.bfloat16, 6, {0: int(size * 0.6), 1: int(size * 0.7)})
    assert {place.index for place in found.blocks} == {0, 1}
    assert list(found.blocks) == sorted(found.blocks, key=lambda place: place.index)
    assert found.head == torch.device("cuda", 1)


def test_a_model_that_no_gpus_hold_is_refused(skeleton: torch.nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"do not fit on the 2 GPUs together; use device cuda"):
        placement.spread(skeleton, torch.bfloat16, 6, {0: 20_000, 1: 20_000})


def test_without_accelerate_one_line_says_how_to_get_it(
    skeleton: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(CheckpointError, match=r"needs the package accelerate; install it with: pip install"):
        placement.spread(skeleton, torch.bfloat16, 6)


def test_all_gpus_as_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {0: devices.Gpu("one", 100, 60, (9, 0)), 1: devices.Gpu("two", 100, 40, (9, 0))}
    monkeypatch.setattr(devices, "find_gpu", lambda index=0: cards.get(index))
    device, dtype, reason = devices.choose("cuda:all", "auto")
    assert (device, dtype) == ("cuda:all", "bfloat16") and "one computes bfloat16" in reason
    assert devices.memory_free("cuda:all") == 100 and devices.memory_free("cuda:1") == 40


def test_a_spread_model_is_dispatched_to_where_its_parts_lie(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors alone: every part is told to lie on one, by accelerate's map and hooks."""
    place = torch.device("cpu")
    names = ["model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head"]
    spread = placement.Placement((place, place), place, dict.fromkeys(names, "cpu"))
    tokens = torch.arange(1, 12)[None]
    backbone = Backbone(small_model, "cpu", "float32")
    expected = backbone.causal_lm()(input_ids=tokens).logits
    monkeypatch.setattr(placement, "dispatched", _always)
    other = Backbone(small_model, "cpu", "float32")
    monkeypatch.setattr(other, "_places", spread)
    assert torch.equal(other.causal_lm()(input_ids=tokens).logits, expected)


def _always(model: torch.nn.Module, found: placement.Placement) -> torch.nn.Module:
    from accelerate import dispatch_model

    return dispatch_model(model, device_map=dict(found.map), force_hooks=True)


def test_the_benchmark_runs_on_a_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from benchmarks import big_model, gpu

    tiny = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    monkeypatch.setitem(big_model.SHAPES, "small", tiny)
    command = "gpu --device cpu --shape small --windows 1x16 --rounds 1 --matrix 64 --scratch"
    monkeypatch.setattr(sys, "argv", [*command.split(), str(tmp_path)])
    gpu.main()
    said = capsys.readouterr().out
    for name in ("wanda", "copal", "sparsegpt", "one bare forward pass", "visit one at a time", "down_proj"):
        assert name in said
    assert not list(tmp_path.iterdir())


def test_a_random_checkpoint_of_a_shape_opens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import big_model
    from copal_core.checkpoints import locate

    grouped = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 4096,
        "num_key_value_heads": 2,
    }  # fmt: skip
    monkeypatch.setitem(big_model.SHAPES, "small", grouped)
    big_model.write("small", tmp_path / "model")
    described = locate(str(tmp_path / "model")).describe("cpu", "float32")
    assert (described.blocks, described.kv_heads, described.stored_dtype) == (3, 2, "bfloat16")
    assert described.projections["k_proj"] == (32, 64)


def test_the_benchmark_imports_without_what_the_product_needs_besides() -> None:
    """It says that torch, transformers and safetensors suffice."""
    import subprocess

    missing = "import sys\nfor name in ('pydantic', 'streamlit', 'plotly'): sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", missing + "import benchmarks.gpu"],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
