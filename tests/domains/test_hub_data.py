"""The hub at its boundary: what `datasets` streams, and every way in which the hub can fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pandas as pd
import pytest

from copal_core.config import Windows
from copal_core.domains import draw, find, remote
from copal_core.errors import DomainError

SMALL = Windows(count=3, length=16)


def lines(first: int, count: int) -> list[str]:
    return [" ".join(f"w{number}.{i}" for i in range(20)) for number in range(first, first + count)]


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """A folder of data sets in place of the hub, read by the real `datasets`."""
    real = remote.load_dataset
    calls = []

    def load(path, config=None, revision=None, **options):
        calls.append({"path": path, "config": config, "revision": revision, **options})
        return real(str(tmp_path / path), **options)

    monkeypatch.setattr(remote, "_reach", lambda label: None)
    monkeypatch.setattr(remote, "load_dataset", load)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path, calls


def publish(folder, **splits):
    folder.mkdir(parents=True)
    for name, columns in splits.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}-00000-of-00001.parquet")


def test_any_data_set_with_a_column(local_hub, tokenizer):
    folder, calls = local_hub
    publish(folder / "owner/name", train={"n": range(50), "body": lines(0, 50), "title": lines(50, 50)})
    domain = find("hub:owner/name:part#body")
    sample = draw(domain, tokenizer, SMALL, SMALL, 0)
    assert sample.calibration.shape == (3, 16) and domain.name == "name:part#body"
    assert calls == [{"path": "owner/name", "config": "part", "revision": None, "streaming": True}]
    # what was read is read from the cache again: offline, and for a resumed run
    assert draw(domain, tokenizer, SMALL, SMALL, 0).content_hash == sample.content_hash and len(calls) == 1
    assert draw(domain, tokenizer, SMALL, SMALL, 1).content_hash != sample.content_hash and len(calls) == 2


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("#nothing", "no column 'nothing'; its columns: n, body"),
        ("#n", "does not hold text; columns with text: body"),
    ],
)
def test_a_wrong_column(local_hub, tokenizer, column, message):
    publish(local_hub[0] / "owner/name", train={"n": range(9), "body": lines(0, 9)})
    with pytest.raises(DomainError, match=message):
        draw(find(f"hub:owner/name{column}"), tokenizer, SMALL, SMALL, 0)


def test_wikitext_articles_and_its_own_splits(local_hub, tokenizer):
    def articles(first):
        rows = []
        for n in range(first, first + 6):
            rows += ["", f" = Title {n} = \n", f" {lines(n, 1)[0]} \n", " = = Part = = \n", " more \n"]
        return rows

    publish(local_hub[0] / "Salesforce/wikitext", train={"text": articles(0)}, test={"text": articles(100)})
    domain = find("hub:wikitext-2")
    documents = [document for document in domain.documents() if "Title" in document.text]
    assert len(documents) == 12 and documents[0].text.count("Title") == 1
    sample = draw(domain, tokenizer, SMALL, SMALL, 0)
    assert all(id.startswith("train ") for id in sample.document_ids["calibration"])
    assert all(id.startswith("test ") for id in sample.document_ids["evaluation"])
    assert sample.notes == ["calibration from the train split", "evaluation from the test split"]
    with pytest.raises(DomainError, match="tokens of text"):
        draw(domain, tokenizer, SMALL, Windows(count=90, length=16), 0)


def test_ptb_reads_the_hubs_parquet_copy(local_hub, tokenizer):
    folder, calls = local_hub
    for number, split in enumerate(("train", "test")):
        publish(
            folder / "ptb-text-only/ptb_text_only/penn_treebank" / split,
            data={"sentence": lines(200 * number, 120)},
        )
    documents = list(find("hub:ptb").documents())
    assert [document.text.count("\n") for document in documents] == [49, 49, 19] * 2
    assert calls[0]["revision"] == "refs/convert/parquet" and calls[0]["data_dir"] == "penn_treebank"


def test_a_missing_split(local_hub, tokenizer):
    publish(local_hub[0] / "allenai/c4", train={"text": lines(0, 50)})
    with pytest.raises(DomainError, match="has no split 'validation'; its splits: train"):
        list(find("hub:c4").documents())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hub:wikitext2", "did you mean 'hub:wikitext-2'"),
        ("hub:a/b/c", "names no hub data set; use hub:wikitext-2, hub:ptb, hub:c4 or hub:owner/name"),
        ("hub:ptb#text", "no column to choose"),
        ("hub:../x", "names no hub data set"),
    ],
)
def test_specifications(spec, message):
    with pytest.raises(DomainError, match=message):
        find(spec)


class DatasetNotFoundError(Exception):
    pass


class GatedRepoError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "loading script, which is never run"),
        (DatasetNotFoundError("Dataset 'o/n' doesn't exist"), "the hub has no data set 'o/n'"),
        (GatedRepoError("403"), "requires a licence to be accepted"),
        (ValueError("Please pick one among the available configs: ['a', 'b']"), "hub:o/n:NAME.*'a', 'b'"),
        (ConnectionError("Max retries"), "stopped answering while 'o/n'"),
        (KeyError("surprise " * 100), r"could not be read from the hub \(KeyError"),
    ],
)  # fmt: skip
def test_failures_are_one_sentence(monkeypatch, error, message):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(remote, "_reach", lambda label: None)
    monkeypatch.setattr(remote, "load_dataset", fail)
    with pytest.raises(DomainError, match=message) as caught:
        list(find("hub:o/n").documents())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_hub_that_falls_silent(monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.3)
    answers = threading.Event()
    monkeypatch.setattr(remote, "_reach", lambda label: answers.wait())
    with pytest.raises(DomainError, match="has sent nothing of 'o/n'"):
        list(find("hub:o/n").documents())
    answers.set()


def offline(endpoint: str, **more: str) -> str:
    """What a fresh process says of a hub at `endpoint`, which it asks without the library of many retries."""
    code = (
        "import sys; from copal_core.domains import find\n"
        "try: list(find('hub:wikitext-2').documents())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print('datasets' in sys.modules)"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, **more}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    said, retried = done.stdout.strip().splitlines()
    assert retried == "False"
    return said


def test_no_network():
    said = offline("http://127.0.0.1:9")  # nothing listens there
    assert said.startswith("DomainError 'WikiText-2' is on the hub, and http://127.0.0.1:9 cannot be reached")


def test_a_server_that_accepts_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = offline(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert "cannot be reached" in said


def test_offline_mode():
    assert "HF_HUB_OFFLINE is set" in offline("http://127.0.0.1:9", HF_HUB_OFFLINE="1")


def test_what_was_streamed_lies_below_the_cache_folder(local_hub, tokenizer, monkeypatch):
    folder, _ = local_hub
    publish(folder / "owner/name", train={"body": lines(0, 50)})
    monkeypatch.setenv("HOME", str(folder / "me"))
    monkeypatch.setenv("COPAL_CACHE", "~/kept")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")  # where a "~" that nobody expands would become a folder
    draw(find("hub:owner/name"), tokenizer, SMALL, SMALL, 0)
    assert len(list((folder / "me" / "kept" / "domains").glob("*.json"))) == 1
    monkeypatch.delenv("COPAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    draw(find("hub:owner/name"), tokenizer, SMALL, SMALL, 0)
    if sys.platform == "linux":
        assert len(list((folder / "xdg" / "copal" / "domains").glob("*.json"))) == 1
