"""Descriptions: real SmolLM2, tied and untied, grouped heads, shards, and what they cost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from copal_core.checkpoints import Checkpoint, headers, locate
from copal_core.checkpoints.architecture import PROJECTIONS
from tests.checkpoints.conftest import ModelFactory


@pytest.mark.real
def test_smollm2_is_described_from_its_headers(smollm2: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    @contextmanager
    def counted(path: Path, mode: str) -> Iterator[BinaryIO]:
        with open(path, mode) as file:
            yield file
            read.append(file.tell())

    monkeypatch.setattr(headers, "open", counted, raising=False)
    found = smollm2.describe()
    assert 0 < sum(read) < 100_000  # bytes, of the 540 million that the files hold
    assert found.architecture == "LlamaForCausalLM"
    assert (found.blocks, found.hidden, found.ffn, found.vocab) == (30, 576, 1536, 49152)
    assert (found.heads, found.kv_heads, found.head_dim, found.queries_per_key) == (9, 3, 64, 3)
    assert found.tied and found.context == 8192 and found.stored_dtype == "float32"
    assert found.parameters == {
        "embedding": 49152 * 576,
        "attention": 30 * (2 * 576 * 576 + 2 * 192 * 576),
        "mlp": 30 * 3 * 1536 * 576,
        "norms": 61 * 576,
        "head": 0,
    }
    assert found.total == 134_515_008
    assert found.memory_needed("float32") == 4 * found.total
    assert found.memory_needed("bfloat16") == 2 * found.total
    assert found.file_bytes > 4 * found.total
    assert found.memory_free > 0
    assert found.projections["k_proj"] == (192, 576) and found.projections["down_proj"] == (576, 1536)
    assert list(found.projections) == list(PROJECTIONS)


@pytest.mark.real
def test_converted_smollm2_predicts_text(smollm2: Checkpoint) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2.folder).eval()
    tokenizer = smollm2.tokenizer()
    text = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid."
    ids = torch.tensor([tokenizer(text).input_ids])
    assert tokenizer.decode(ids[0]) == text
    with torch.no_grad():
        assert 0.5 < float(model(ids, labels=ids).loss) < 2.5  # nats a token; ln 49152 = 10.8 knows nothing


def test_untied_model_counts_its_head(make_model: ModelFactory) -> None:
    tied = locate(str(make_model())).describe()
    untied = locate(str(make_model(tie_word_embeddings=False))).describe()
    assert tied.tied and tied.parameters["head"] == 0
    assert not untied.tied and untied.parameters["head"] == 300 * 32
    assert untied.total == tied.total + 300 * 32


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_heads(make_model: ModelFactory, kv_heads: int) -> None:
    found = locate(str(make_model(num_key_value_heads=kv_heads))).describe()
    assert found.projections["k_proj"] == found.projections["v_proj"] == (8 * kv_heads, 32)
    assert found.queries_per_key == 4 // kv_heads


def test_head_dimension_of_its_own(make_model: ModelFactory) -> None:
    found = locate(str(make_model(head_dim=12))).describe()
    assert found.head_dim == 12
    assert found.projections["q_proj"] == (48, 32) and found.projections["o_proj"] == (32, 48)


def test_shards_describe_as_one_file(make_model: ModelFactory) -> None:
    whole, sharded = make_model(), make_model(max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    one, many = locate(str(whole)), locate(str(sharded))
    assert many.describe().parameters == one.describe().parameters
    assert many.fingerprint() == one.fingerprint()


def test_mistral_shape_is_accepted(make_model: ModelFactory) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from tests.checkpoints.conftest import SIZES

    torch.manual_seed(0)
    folder = make_model(model=MistralForCausalLM(MistralConfig(**SIZES)))
    found = locate(str(folder)).describe()
    assert found.architecture == "MistralForCausalLM"
    assert set(found.projections) == set(PROJECTIONS)


def test_position_scaling_is_named(make_model: ModelFactory) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert locate(str(make_model(rope_parameters=scaling))).describe().rope == "linear ×4"
    assert locate(str(make_model())).describe().rope == "default"


def test_half_precision_is_named_and_counted(make_model: ModelFactory) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.checkpoints.conftest import SIZES

    model = LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16)
    found = locate(str(make_model(model=model))).describe()
    assert found.stored_dtype == "bfloat16"
    assert found.file_bytes < 4 * found.total


def test_description_does_not_import_torch(model_folder: Path) -> None:
    program = (
        "import sys\n"
        "from copal_core.checkpoints import catalogue, locate\n"
        f"catalogue(); checkpoint = locate({str(model_folder)!r}); checkpoint.describe(); checkpoint.fingerprint()\n"
        "heavy = {'torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub', 'streamlit'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


def test_fingerprint_follows_content(model_folder: Path, make_model: ModelFactory, tmp_path: Path) -> None:
    first = locate(str(model_folder)).fingerprint()
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    assert locate(str(copy)).fingerprint() == first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert locate(str(copy)).fingerprint() != first
    assert locate(str(make_model(rms_norm_eps=1e-3))).fingerprint() != first
