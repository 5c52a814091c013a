"""Tables, masks, bundles and checkpoints that leave a run: what comes back is what went in."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from copal_core.cli.main import main
from copal_core.config import RunConfig
from copal_core.errors import CopalError, InvalidValueError, NumericalError, RunError
from copal_core.export import checkpoints
from copal_core.export.bundle import create_from, read_bundle, write_bundle
from copal_core.export.packed_masks import weight_name, write_masks
from copal_core.export.tables import FORMATS, encode, tables_of, write_tables
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from tests.report.conftest import METHODS

READERS = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}


@pytest.mark.parametrize("form", FORMATS)
def test_tables_come_back(computed: RunStore, tmp_path: Path, form: str) -> None:
    with zipfile.ZipFile(write_tables(computed, tmp_path / "tables.zip", form)) as archive:
        names = set(archive.namelist())
        tables = tables_of(computed)
        assert names == {"README.txt", *(f"{name}.{form}" for name in tables)}
        assert computed.protocol_stamp() in archive.read("README.txt").decode()
        for name in ("perplexity", "layers", "factors", "summary"):
            back = READERS[form](io.BytesIO(archive.read(f"{name}.{form}")))
            assert list(back.columns) == list(tables[name].columns)
            numbers = tables[name].select_dtypes("number")
            assert np.allclose(back[numbers.columns], numbers, rtol=1e-9, equal_nan=True)
    with pytest.raises(InvalidValueError, match="not known"):
        encode(tables["layers"], "xls")


def test_masks_come_back_through_the_loader_that_travels_with_them(
    computed: RunStore, tmp_path: Path
) -> None:
    with zipfile.ZipFile(write_masks(computed, "copal:accumulate", 2, tmp_path / "masks.zip")) as archive:
        archive.extractall(tmp_path / "masks")
    spec = importlib.util.spec_from_file_location("load_masks", tmp_path / "masks" / "load_masks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.load_masks(tmp_path / "masks" / "masks.safetensors")
    assert len(found) == 2 * 7
    for block in range(2):
        for projection, mask in computed.masks("copal:accumulate", 2, block).items():
            assert np.array_equal(found[weight_name(block, projection)], mask)


@pytest.mark.parametrize(
    ("method", "step", "words"),
    [
        ("whitened-svd:accumulate", 1, "factors"),
        ("magnitude-neurons:restart", 1, "neurons"),
        ("copal:accumulate", 9, "not finished"),
        ("wanda:restart", 1, "not in run"),
    ],
)
def test_masks_that_do_not_exist(
    computed: RunStore, tmp_path: Path, method: str, step: int, words: str
) -> None:
    with pytest.raises(CopalError, match=words):
        write_masks(computed, method, step, tmp_path / "masks.zip")


# -- bundle --------------------------------------------------------------------------------------------


def test_a_run_is_repeated_from_its_bundle_without_the_texts(
    runs: Runs, computed: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((computed.folder / "run.json").read_text())
    moved = [f"/no/such/place/{number}.txt" for number, _ in enumerate(content["config"]["domains"])]
    shutil.copytree(computed.folder, runs.root / "elsewhere")
    content["config"]["domains"] = moved
    (runs.root / "elsewhere" / "run.json").write_text(json.dumps(content))
    bundle = write_bundle(runs.open("elsewhere"), tmp_path / "bundle.zip")
    assert bundle.read_bytes() == write_bundle(runs.open("elsewhere"), tmp_path / "again.zip").read_bytes()
    assert main(["reproduce", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identical"] and found["largest_relative_difference"] == 0.0
    assert found["compared"] == 2 + len(METHODS) * 2 * 2
    assert found["other_versions"] == {}


def test_a_bundle_says_what_is_needed(computed: RunStore, tmp_path: Path) -> None:
    with zipfile.ZipFile(write_bundle(computed, tmp_path / "bundle.zip")) as archive:
        assert {"README.md", "command.txt", "config.json", "run.json", "result.json"} <= set(
            archive.namelist()
        )
        described = json.loads(archive.read("run.json"))
        assert len(described["checkpoint"]["fingerprint"]) == 64
        assert all(len(domain["content_hash"]) == 64 for domain in described["domains"])
        assert "torch" in described["versions"]
        assert RunConfig.from_json(archive.read("config.json").decode()) == computed.config


def test_other_weights_are_refused(
    runs: Runs,
    computed: RunStore,
    make_model: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_bundle(computed, tmp_path / "bundle.zip")
    other = make_model(intermediate_size=40)
    assert main(["reproduce", str(bundle), "--checkpoint", str(other)]) == 2
    assert "has changed" in capsys.readouterr().err


def test_damaged_and_hostile_bundles(runs: Runs, computed: RunStore, tmp_path: Path) -> None:
    whole = write_bundle(computed, tmp_path / "bundle.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}

    def changed(**replaced: bytes | None) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in {
                **entries,
                **{k.replace("__", "/"): v for k, v in replaced.items()},
            }.items():
                if content is not None:
                    archive.writestr(name, content)
        return buffer.getvalue()

    windows = "windows/domain-00.safetensors"
    flipped = bytearray(entries[windows])
    flipped[-1] ^= 1
    described = json.loads(entries["run.json"])
    described["domains"][0].pop("name")
    bad = [
        b"",
        b"no zip at all",
        whole[: len(whole) // 2],
        changed(**{"config.json": None}),
        changed(**{"config.json": b"{}"}),
        changed(**{"run.json": b"[]"}),
        changed(**{"run.json": json.dumps(described).encode()}),
        changed(**{"result.json": b"\xff"}),
        changed(**{windows: bytes(flipped)}),
        changed(**{windows: b"\x00" * 40}),
    ]
    for content in bad:
        path = tmp_path / "bad.zip"
        path.write_bytes(content)
        with pytest.raises(CopalError):
            read_bundle(path)
    outside = tmp_path / "outside.zip"
    outside.write_bytes(changed(**{"../../evil.txt": b"x"}))  # nothing is unpacked: it is not even looked at
    store = create_from(read_bundle(outside), runs)
    assert store.folder.parent == runs.root
    assert not list(tmp_path.rglob("evil.txt"))


# -- checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_exported_checkpoint_is_measured_again(computed: RunStore, tmp_path: Path, method: str) -> None:
    found = checkpoints.export_and_check(computed, method, 2, tmp_path / "out")
    assert len(found["domains"]) == 2
    for pair in found["domains"].values():
        assert pair["reloaded"] == pytest.approx(pair["run"], rel=1e-3)
    assert "measured again" in (tmp_path / "out" / "README.md").read_text()


def test_a_checkpoint_that_is_not_the_runs_is_not_left_behind(
    computed: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from copal_core.export import checkpoint

    real = checkpoint.export_checkpoint

    def spoiled(store: RunStore, method: str, step: int, out: Path) -> Path:
        folder = real(store, method, step, out)
        path = next(folder.glob("*.safetensors"))
        tensors = load_file(path)
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 3
        save_file(tensors, path, {"format": "pt"})
        return folder

    monkeypatch.setattr(checkpoint, "export_checkpoint", spoiled)
    with pytest.raises(NumericalError, match="not the same model"):
        checkpoints.export_and_check(computed, "sparsegpt:sequential", 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_compressed_tensors_declares_the_structure(computed: RunStore, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="an optional package: pip install compressed-tensors")
    found = checkpoints.export_and_check(
        computed, "copal:accumulate", 2, tmp_path / "out", "compressed-tensors"
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "dense")
    assert config["sparsity_config"]["global_sparsity"] == 0.5
    assert all(pair["reloaded"] == pytest.approx(pair["run"], rel=1e-3) for pair in found["domains"].values())
    assert "It saves no bytes" in (tmp_path / "out" / "README.md").read_text()


def test_without_the_package_the_format_is_refused_in_words(
    computed: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install compressed-tensors"):
        checkpoints.export_and_check(computed, "copal:accumulate", 2, tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidValueError, match="not known"):
        checkpoints.why_not("gguf")
