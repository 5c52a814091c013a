"""Connection to the hub: rows of text, or one clear error message within seconds."""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from copal_core.domains.columns import choose_column
from copal_core.errors import DomainError

if TYPE_CHECKING:
    from copal_core.domains.hub import Source

PATIENCE = 30.0  # seconds without a row before the hub counts as silent
REACH = 6.0  # seconds for the first answer
_AHEAD = 1_000  # rows read ahead
_SHUFFLED = 2_000  # rows in the buffer that shuffles a streamed split
_OFFLINE = "the built-in domains and files work offline"


def rows(source: Source, split: str, seed: int, label: str) -> Iterator[str]:
    """Yield the text of each row of a split, streamed by a thread so that a silent hub cannot block the caller.

    Args:
        source: the data set. Rows that make up documents keep the publisher's order, others are shuffled.
        split: its name; empty for "train", or the first split where there is none.
        seed: of the shuffling.
        label: the data set's name in messages.

    Raises:
        DomainError: the hub is unreachable or silent, or lacks the data set, configuration or column.
    """
    ahead: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stop.is_set():
            try:
                return ahead.put((kind, value), timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            _reach(label)
            for text in () if stop.is_set() else _stream(source, split, seed, label):
                put("row", text)
                if stop.is_set():
                    return
            put("end", None)
        except Exception as error:  # noqa: BLE001 - any failure of the hub's libraries goes to the caller's thread
            put("error", error)

    threading.Thread(target=work, daemon=True, name="hub").start()
    try:
        yield from _received(ahead, source, label)
    finally:
        stop.set()


def _received(ahead: queue.Queue[tuple[str, Any]], source: Source, label: str) -> Iterator[str]:
    while True:
        try:
            kind, value = ahead.get(timeout=PATIENCE)
        except queue.Empty:
            raise DomainError(
                f"the hub has sent nothing of '{label}' for {PATIENCE:.0f} seconds; try again later, {_OFFLINE}"
            ) from None
        if kind == "end":
            return
        if kind == "error":
            raise explained(value, source, label) from None
        yield value


def _reach(label: str) -> None:
    """Make one request, so that a missing network shows at once and not after the libraries' many retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        raise DomainError(
            f"'{label}' is on the hub, and HF_HUB_OFFLINE is set; unset it, or stay local: {_OFFLINE}"
        )
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH)
    except Exception as error:  # noqa: BLE001 - the client, and so its errors, differ between versions
        raise DomainError(
            f"'{label}' is on the hub, and {constants.ENDPOINT} cannot be reached ({type(error).__name__}); "
            f"check the network, {_OFFLINE}"
        ) from None


def load_dataset(*args: Any, **options: Any) -> Any:
    """Call `datasets.load_dataset` with few retries; imported here because the library is slow to import."""
    import datasets

    for name in ("STREAMING_OPEN_MAX_RETRIES", "STREAMING_READ_MAX_RETRIES"):
        setattr(datasets.config, name, 2)
    for name in dir(datasets.config):
        if name.startswith("STREAMING_") and name.endswith("RETRY_INTERVAL"):
            setattr(datasets.config, name, 1)
    datasets.disable_progress_bars()
    return datasets.load_dataset(*args, **options)


def _stream(source: Source, split: str, seed: int, label: str) -> Iterator[str]:
    """Open the data set and yield one column; runs in the thread."""
    if os.path.exists(source.path):  # the library would read the local folder instead of the hub's data set
        raise DomainError(
            f"'{source.path}' is also a folder here, which would be read; start the app elsewhere, or name a file"
        )
    options = {"revision": source.revision, "data_dir": source.folder}
    splits = load_dataset(
        source.path, source.config, streaming=True, **{key: value for key, value in options.items() if value}
    )
    split = split or ("train" if "train" in splits else next(iter(splits)))
    if split not in splits:
        raise DomainError(f"'{label}' has no split '{split}'; its splits: {', '.join(splits)}")
    data = splits[split]
    column = _column(data, source, label)
    if source.gather == "row":
        data = data.shuffle(seed=seed, buffer_size=_SHUFFLED)
    for row in data:
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise DomainError(f"column '{column}' of '{label}' holds {type(text).__name__}, not text")
        yield text or ""


def _column(data: Any, source: Source, label: str) -> str:
    if data.features:
        texts = [
            name
            for name, kind in data.features.items()
            if getattr(kind, "dtype", "") in ("string", "large_string")
        ]
        return choose_column(label, list(data.features), source.column, texts)
    first: dict[str, Any] = next(iter(data), {})
    return choose_column(
        label, list(first), source.column, [n for n, v in first.items() if isinstance(v, str)]
    )


def explained(error: Exception, source: Source, label: str) -> DomainError:
    """Translate a failure of the hub's libraries into one sentence that says what to do."""
    if isinstance(error, DomainError):
        return error
    text = " ".join(str(error).split())
    kind = type(error).__name__
    for matches, sentence in _SENTENCES:
        if matches(kind, text):
            return DomainError(
                sentence.format(label=label, path=source.path, config=source.config, text=_short(text))
            )
    return DomainError(f"'{label}' could not be read from the hub ({kind}: {_short(text)}); {_OFFLINE}")


_SENTENCES: list[tuple[Callable[[str, str], bool], str]] = [
    (lambda kind, text: "scripts are no longer supported" in text,
     "'{label}' is a loading script, which is never run; use a copy of '{path}' as parquet or JSON files"),
    (lambda kind, text: "Gated" in kind or "gated" in text,
     "'{label}' requires a licence to be accepted; accept it on its page on the hub and log in with `hf auth login`"),
    (lambda kind, text: kind in ("DatasetNotFoundError", "RepositoryNotFoundError"),
     "the hub has no data set '{path}', or it is private; check the spelling, or log in with `hf auth login`"),
    (lambda kind, text: "onfig" in text and ("available" in text.lower() or "pick one" in text),
     "'{label}' needs one of its configurations, as in hub:{path}:NAME. {text}"),
    (lambda kind, text: kind in ("DataFilesNotFoundError", "EmptyDatasetError"),
     "'{label}' holds no text files that can be read; choose another data set"),
    (lambda kind, text: re.search("Connect|Timeout|Offline|MaxRetry", kind) is not None,
     "the hub stopped answering while '{label}' was read; check the network, " + _OFFLINE),
]  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."
