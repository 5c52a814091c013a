"""The choice of device and dtype, with the hardware's answers replaced."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from copal_core.checkpoints import devices
from copal_core.errors import CheckpointError, InvalidValueError

H200 = devices.Gpu("H200", 140 << 30, 100 << 30, (9, 0))
T4 = devices.Gpu("T4", 16 << 30, 15 << 30, (7, 5))


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def have(gpu: devices.Gpu | None, cpu_bfloat16: bool = False) -> None:
        monkeypatch.setattr(devices, "find_gpu", lambda index=0: gpu if index == 0 else None)
        monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: cpu_bfloat16)

    return have


def test_processor_without_bfloat16_computes_in_float32(hardware) -> None:  # type: ignore[no-untyped-def]
    hardware(None)
    device, dtype, reason = devices.choose()
    assert (device, dtype) == ("cpu", "float32") and "no native bfloat16" in reason


def test_processor_with_bfloat16(hardware) -> None:  # type: ignore[no-untyped-def]
    hardware(None, cpu_bfloat16=True)
    assert devices.choose()[:2] == ("cpu", "bfloat16")


def test_gpu_is_preferred_and_named(hardware) -> None:  # type: ignore[no-untyped-def]
    hardware(H200)
    device, dtype, reason = devices.choose()
    assert (device, dtype) == ("cuda", "bfloat16") and "H200" in reason
    assert devices.memory_free("cuda") == 100 << 30
    assert devices.choose("cpu")[:2] == ("cpu", "float32")
    assert devices.choose("cuda:0", "float16") == ("cuda:0", "float16", "float16 was requested")


def test_older_gpu_computes_in_float32(hardware) -> None:  # type: ignore[no-untyped-def]
    hardware(T4)
    assert devices.choose()[:2] == ("cuda", "float32")


def test_absent_gpu_is_refused(hardware) -> None:  # type: ignore[no-untyped-def]
    hardware(None)
    with pytest.raises(CheckpointError, match="cuda"):
        devices.choose("cuda")
    hardware(H200)
    with pytest.raises(CheckpointError, match="cuda:3"):
        devices.choose("cuda:3")


@pytest.mark.parametrize(
    ("device", "dtype"), [("tpu", "auto"), ("cuda:x", "auto"), ("cpu:1", "auto"), ("cpu", "int8")]
)
def test_unknown_words_list_the_known(device: str, dtype: str) -> None:
    with pytest.raises(InvalidValueError, match="use auto, "):
        devices.choose(device, dtype)


def test_hidden_devices_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(devices, "_query", lambda name: H200 if name in ("0", "GPU-1234") else None)
    for visible, found in (("", None), ("-1", None), ("0", H200), ("GPU-1234", H200), ("5", None)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert devices.find_gpu() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.find_gpu(0) == H200 and devices.find_gpu(1) is None


def test_the_drivers_answers_become_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def by_index(index: int) -> str:
        if index != 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return "handle"

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlDeviceGetHandleByIndex": by_index,
        "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle of {uuid}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=140 << 30, free=100 << 30),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetName": lambda handle: "H200",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert devices._query("0") == devices._query("GPU-1234") == H200
    assert devices._query("7") is None and len(closed) == 3


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.find_gpu() is None and devices.memory_free("cuda:all") == 0


def test_free_memory_is_measured() -> None:
    assert devices.memory_free("cpu") > 1 << 20
