"""Choice of device and dtype for a computation, from hardware queries that do not import torch."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from copal_core.errors import CheckpointError, InvalidValueError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # flags of x86 and ARM processors
_MOST_GPUS = 16  # number of device indices that are probed
_AMPERE = (8, 0)  # the first CUDA compute capability with bfloat16


@dataclass(frozen=True)
class Gpu:
    """One visible CUDA device: name, total and free memory in bytes, compute capability."""

    name: str
    total: int
    free: int
    capability: tuple[int, int]


def choose(device: str = "auto", dtype: str = "auto") -> tuple[str, str, str]:
    """Resolve device and dtype.

    Args:
        device: auto, cpu, cuda, cuda:N, or cuda:all for every visible GPU.
        dtype: auto, float32, bfloat16 or float16.

    Returns:
        The device, the dtype, and the reason for the dtype in words.

    Raises:
        InvalidValueError: a value is not known.
        CheckpointError: CUDA is requested but not available.
    """
    if dtype != "auto" and dtype not in DTYPE_BYTES:
        raise InvalidValueError(f"dtype '{dtype}' is not known; use auto, {', '.join(DTYPE_BYTES)}")
    kind, _, number = device.partition(":")
    if device not in ("auto", "cpu", "cuda", "cuda:all") and not (kind == "cuda" and number.isdigit()):
        raise InvalidValueError(f"device '{device}' is not known; use auto, cpu, cuda, cuda:N or cuda:all")
    gpu = None if device == "cpu" else find_gpu(_first(device))
    if gpu is None and kind == "cuda":
        raise CheckpointError(f"device '{device}' is not on this machine, or this torch has no CUDA; use cpu")
    resolved = "cpu" if gpu is None else "cuda" if device == "auto" else device
    if dtype != "auto":
        return resolved, dtype, f"{dtype} was requested"
    return resolved, *_dtype_for(gpu)


def _first(device: str) -> int:
    """Return the index of the GPU that a device names, or of the first of several."""
    number = device.partition(":")[2]
    return int(number) if number.isdigit() else 0


def _dtype_for(gpu: Gpu | None) -> tuple[str, str]:
    if gpu is not None and gpu.capability >= _AMPERE:
        return "bfloat16", f"bfloat16 weights with float32 statistics: {gpu.name} computes bfloat16 natively"
    if gpu is not None:
        return "float32", f"float32: {gpu.name} has no native bfloat16"
    if cpu_has_bfloat16():
        return (
            "bfloat16",
            "bfloat16 weights with float32 statistics: this processor computes bfloat16 natively",
        )
    return "float32", "float32: this processor has no native bfloat16, which would be several times slower"


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Return whether the processor lists an instruction for bfloat16 products; False if that cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    words = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _NATIVE_BFLOAT16.isdisjoint(words.lower().split())


def memory_free(device: str) -> int:
    """Return the bytes that a new process could use on the device, within the container's memory limit."""
    if device == "cuda:all":
        return sum(gpu.free for number in range(_MOST_GPUS) if (gpu := find_gpu(number)) is not None)
    if device.startswith("cuda"):
        gpu = find_gpu(_first(device))
        return gpu.free if gpu is not None else 0
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return available if limit == "max" else min(available, max(0, int(limit) - used))
    except (OSError, ValueError):
        return available


def find_gpu(index: int = 0) -> Gpu | None:
    """Return the visible CUDA device with this index; None if there is none, or torch is a CPU-only build."""
    if not _torch_has_cuda():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if index >= len(names) or names[index] == "-1":
            return None
        return _query(names[index])
    return _query(str(index))


@lru_cache(maxsize=1)
def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")  # locates the package without importing it
    if spec is None or spec.origin is None:
        return False
    return any((Path(spec.origin).parent / "lib").glob("*torch_cuda*"))


def _query(name: str) -> Gpu | None:
    """Query NVIDIA's management library for a device by index or UUID; None if it does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver here, or one that does not answer
        return None
    try:
        of = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        handle = of(int(name) if name.isdigit() else name)
        memory, label, capability = pynvml.nvmlDeviceGetMemoryInfo(handle), "this GPU", (0, 0)
        with suppress(pynvml.NVMLError):  # a slice of a GPU may not report these, and is usable all the same
            capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            label = pynvml.nvmlDeviceGetName(handle)
        return Gpu(label, int(memory.total), int(memory.free), capability)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
