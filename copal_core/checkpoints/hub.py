"""A checkpoint from the Hugging Face hub: safetensors, config and tokenizer files only, never code or pickles."""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from pathlib import Path
from typing import Any

from copal_core.checkpoints.architecture import shape_from_config
from copal_core.checkpoints.cache import Report
from copal_core.checkpoints.headers import INDEX, PICKLES, read_json
from copal_core.errors import CheckpointError

TIMEOUT = 5.0  # seconds for the hub's first answer
_SUPPORT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def download(name: str, revision: str | None, report: Report) -> tuple[Path, str]:
    """The local snapshot folder of `name` and the commit it holds; files already there are not fetched again.

    Raises CheckpointError: unknown or gated name, unknown revision, no safetensors, not a LLaMA
    architecture, too little disk space, no network (within seconds, unless a snapshot is already there).
    """
    report(f"Asking the hub about {name}", 0, 100)
    info = _ask(name, revision)
    if info is None:
        return _cached(name, revision)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    files = _wanted(name, sizes)
    endpoint, cache = _endpoint(), _cache_folder()
    from huggingface_hub import hf_hub_download

    config = _in_words(
        name, hf_hub_download, name, "config.json", revision=info.sha, endpoint=endpoint, etag_timeout=TIMEOUT
    )
    shape_from_config(read_json(Path(config)), name)  # refuse before gigabytes are fetched
    total = sum(sizes[file] for file in files)
    _check_space(name, total, cache)
    folder = _fetch(name, revision, files, total, report)
    return Path(folder), str(info.sha)


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now; huggingface_hub alone reads it once, at import."""
    return os.environ.get("HF_ENDPOINT") or None


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _ask(name: str, revision: str | None) -> Any:
    """The hub's listing of a repository, or None when the hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi(endpoint=_endpoint()).model_info(
            name, revision=revision, timeout=TIMEOUT, files_metadata=True
        )
    except GatedRepoError:
        raise CheckpointError(
            f"'{name}' asks for its licence to be accepted; accept it on the hub, and set HF_TOKEN to your token"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"'{name}' has no revision '{revision}'; give a branch or commit") from None
    except RepositoryNotFoundError:
        raise CheckpointError(_unknown(name)) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 404):
            raise CheckpointError(_unknown(name)) from None
        if status < 500 and status != 429:
            raise CheckpointError(
                f"the hub refused '{name}' (status {status}); check the name and HF_TOKEN"
            ) from None
        return None
    except ValueError as error:  # the name breaks the hub's own rules
        raise CheckpointError(f"'{name}' is not a hub id ({str(error).splitlines()[0]})") from None
    except Exception:  # noqa: BLE001  whatever the HTTP library raises without a network
        return None


def _unknown(name: str) -> str:
    return f"'{name}' is neither a local folder nor a public model on the hub; check its spelling, or set HF_TOKEN"


def _wanted(name: str, sizes: dict[str, int]) -> list[str]:
    """The files to fetch, all from the repository's top folder. Raises CheckpointError without safetensors."""
    top = [file for file in sizes if "/" not in file]
    weights = [file for file in top if file.endswith(".safetensors")]
    if INDEX in top:
        weights = [INDEX, *(file for file in weights if not file.startswith("consolidated"))]
    elif "model.safetensors" in top:
        weights = ["model.safetensors"]
    if not weights:
        pickled = [file for file in top if file.endswith(PICKLES)]
        raise CheckpointError(
            f"'{name}' offers pickled weights only ({pickled[0]}), which can run code when they are read; "
            "use a repository with safetensors"
            if pickled
            else f"'{name}' has no safetensors weights; use another repository, or a .gguf file on this machine"
        )
    if "config.json" not in top:
        raise CheckpointError(f"'{name}' has no config.json; use a repository that transformers can load")
    return [*(file for file in _SUPPORT if file in top), *weights]


def _check_space(name: str, total: int, cache: Path) -> None:
    """Raises CheckpointError when the disk under `cache` cannot hold `total` bytes."""
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    already = sum(
        path.stat().st_size for path in (cache / f"models--{name.replace('/', '--')}" / "blobs").glob("*")
    )
    if total - already > free:
        raise CheckpointError(
            f"'{name}' takes {total / 1e9:.1f} GB and '{place}' has {free / 1e9:.1f} GB free; "
            "make room, or set HF_HOME to another disk"
        )


def _in_words(name: str, call: Any, *values: Any, **options: Any) -> Any:
    """Run a download; whatever the network or the disk did becomes one CheckpointError."""
    try:
        return call(*values, **options)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  the HTTP library's errors are its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"the download of '{name}' stopped ({reason}); try again, it continues"
        ) from None


def _fetch(name: str, revision: str | None, files: list[str], total: int, report: Report) -> str:
    """snapshot_download in a thread of its own, so that `report` is called from the caller's.

    What `report` raises ends the download and reaches the caller as it is.
    """
    from huggingface_hub import snapshot_download

    counter = _Counter()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub")
    future: Future[str] = pool.submit(
        _in_words,
        name,
        snapshot_download,
        name,
        revision=revision,
        allow_patterns=files,
        etag_timeout=TIMEOUT,
        endpoint=_endpoint(),
        tqdm_class=counter.bar_class(),
    )
    try:
        while True:
            report(f"Downloading {name}", min(counter.done, total), total)
            try:
                folder = future.result(timeout=0.2)
            except StillRunning:
                continue
            report(f"Downloading {name}", total, total)
            return folder
    finally:
        counter.stopped = True  # a caller that gives up also ends the thread
        pool.shutdown(wait=False, cancel_futures=True)


class _Counter:
    """The bytes fetched so far, read from the hub library's own progress bars, which are not drawn."""

    def __init__(self) -> None:
        self.done = 0
        self.stopped = False

    def bar_class(self) -> type:
        from tqdm.std import tqdm

        counter = self

        class Bar(tqdm):
            def __init__(self, *values: Any, **options: Any) -> None:
                options.pop("name", None)
                super().__init__(*values, **{**options, "file": io.StringIO(), "disable": False})

            def update(self, n: float | None = 1) -> bool | None:
                if counter.stopped:
                    raise CheckpointError("the download was given up")
                shown = super().update(n)
                if self.unit == "B":
                    counter.done = max(counter.done, int(self.n))
                return shown

        return Bar


def _cached(name: str, revision: str | None) -> tuple[Path, str]:
    """A complete snapshot from an earlier download. Raises CheckpointError without one."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if (folder / "config.json").is_file():
            return folder, folder.name
    except Exception:  # noqa: BLE001  no snapshot, in one of several types
        pass
    raise CheckpointError(
        f"'{name}' is not a local folder, and the hub cannot be reached to look for it; "
        "check the network, or use smollm2-135m, tiny or a local folder"
    )
