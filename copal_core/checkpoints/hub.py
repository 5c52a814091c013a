"""Download of checkpoints from the Hugging Face hub: safetensors, config and tokenizer files, no code or pickles."""

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
    """Download a checkpoint; files that are already present are not fetched again.

    Args:
        name: owner/name on the hub.
        revision: branch or commit; None for the default branch.
        report: receives label, done and total.

    Returns:
        The local snapshot folder and its commit.

    Raises:
        CheckpointError: the name is unknown or gated, the revision unknown, there are no safetensors, the
            architecture is not LLaMA's, the disk is too full, or (within seconds, and only if no snapshot is
            present) there is no network.
    """
    report(f"Asking the hub about {name}", 0, 100)
    info = _listing(name, revision)
    if info is None:
        return _cached(name, revision)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    files = _wanted(name, sizes)
    endpoint, cache = _endpoint(), _cache_folder()
    from huggingface_hub import hf_hub_download

    config = _download(
        name, hf_hub_download, name, "config.json", revision=info.sha, endpoint=endpoint, etag_timeout=TIMEOUT
    )
    shape_from_config(
        read_json(Path(config)), name
    )  # refuses another architecture before gigabytes are fetched
    total = sum(sizes[file] for file in files)
    _check_space(name, total, cache)
    folder = _fetch(name, revision, files, total, report)
    return Path(folder), str(info.sha)


def _endpoint() -> str | None:
    """Return the current HF_ENDPOINT; huggingface_hub itself reads it only at import."""
    return os.environ.get("HF_ENDPOINT") or None


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _listing(name: str, revision: str | None) -> Any:
    """Return the hub's listing of a repository, or None if the hub cannot be reached."""
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
            f"'{name}' requires its licence to be accepted; accept it on the hub, and set HF_TOKEN to your token"
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
    except ValueError as error:  # the name breaks the hub's rules
        raise CheckpointError(f"'{name}' is not a hub id ({str(error).splitlines()[0]})") from None
    except Exception:  # noqa: BLE001  whatever the HTTP library raises without a network
        return None


def _unknown(name: str) -> str:
    return f"'{name}' is neither a local folder nor a public model on the hub; check its spelling, or set HF_TOKEN"


def _wanted(name: str, sizes: dict[str, int]) -> list[str]:
    """Select the files to fetch from the repository's top folder. Raises CheckpointError without safetensors."""
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
    """Raise CheckpointError if the disk under `cache` cannot hold `total` bytes."""
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    already = sum(
        path.stat().st_size for path in (cache / f"models--{name.replace('/', '--')}" / "blobs").glob("*")
    )
    if total - already > free:
        raise CheckpointError(
            f"'{name}' takes {total / 1e9:.1f} GB and '{existing}' has {free / 1e9:.1f} GB free; "
            "make room, or set HF_HOME to another disk"
        )


def _download(name: str, call: Any, *values: Any, **options: Any) -> Any:
    """Run a download; turn any error of the network or the disk into a CheckpointError."""
    try:
        return call(*values, **options)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  the HTTP library has exceptions of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"the download of '{name}' stopped ({reason}); try again, it continues"
        ) from None


def _fetch(name: str, revision: str | None, files: list[str], total: int, report: Report) -> str:
    """Run snapshot_download in a separate thread, so that `report` is called in the caller's thread.

    An exception raised by `report` ends the download and reaches the caller unchanged.
    """
    from huggingface_hub import snapshot_download

    counter = _Counter()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hub")
    future: Future[str] = pool.submit(
        _download,
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
        counter.stopped = True  # also ends the thread if the caller gave up
        pool.shutdown(wait=False, cancel_futures=True)


class _Counter:
    """Counts the bytes fetched so far, from the hub library's own progress bars, which are not drawn."""

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
    """Return a complete snapshot of an earlier download and its commit. Raises CheckpointError without one."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if (folder / "config.json").is_file():
            return folder, folder.name
    except Exception:  # noqa: BLE001  a missing snapshot raises one of several types
        pass
    raise CheckpointError(
        f"'{name}' is not a local folder, and the hub cannot be reached to look for it; "
        "check the network, or use smollm2-135m, tiny or a local folder"
    )
