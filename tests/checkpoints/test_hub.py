"""The hub, played by a server on this machine that speaks the few endpoints that are used."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from copal_core.checkpoints import locate
from copal_core.errors import CheckpointError
from tests.checkpoints.conftest import ModelFactory

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by name: file name -> bytes. `refused`: name -> (status, the hub's error code)."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.fetched: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, folder: Path) -> None:
        self.repositories[name] = {path.name: path.read_bytes() for path in folder.iterdir()}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *values: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name in self.hub.refused:
            status, code = self.hub.refused[name]
            return self._send(status, b"{}", body, {"X-Error-Code": code})
        files = self.hub.repositories.get(name)
        if files is None:
            return self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if parts[0] == "api":
            return self._api(name, parts[4:], files, body)
        file = "/".join(parts[4:])
        if file not in files:
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
        if body:
            self.hub.fetched.append(file)
        etag = hashlib.sha256(files[file]).hexdigest()
        return self._send(200, files[file], body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _api(self, name: str, rest: list[str], files: dict[str, bytes], body: bool) -> None:
        if rest and rest[-1] not in ("main", COMMIT):
            return self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        if rest and rest[0] == "tree":
            content: Any = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files.items()
            ]
        else:
            siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
            content = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        return self._send(200, json.dumps(content).encode(), body, {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield fake
    fake.close()


def connections(listening: socket.socket) -> int:
    """How many connections have been opened to a socket that accepted none."""
    listening.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


def refusal(name: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_download_describe_and_open_again(hub: FakeHub, make_model: ModelFactory, shards: str) -> None:
    model = make_model(max_shard_size=shards)
    hub.add("someone/small", model)
    hub.repositories["someone/small"] |= {
        "pytorch_model.bin": b"pickle",
        "modeling_custom.py": b"raise SystemExit('ran')",
        "consolidated.safetensors": b"another layout",
        "README.md": b"words",
        "original/model.safetensors": b"elsewhere",
    }
    steps: list[tuple[str, int, int]] = []
    checkpoint = locate("someone/small", lambda *step: steps.append(step))
    assert checkpoint.revision == COMMIT and checkpoint.name == "someone/small"
    assert checkpoint.describe().parameters == locate(str(model)).describe().parameters
    assert checkpoint.fingerprint() == locate(str(model)).fingerprint()
    assert checkpoint.tokenizer()("the mask").input_ids
    assert {path.name for path in checkpoint.folder.iterdir()} == {path.name for path in model.iterdir()}
    assert steps[-1][1] == steps[-1][2] > 0
    fetched = len(hub.fetched)
    assert locate(f"someone/small@{COMMIT}").folder == checkpoint.folder
    assert len(hub.fetched) == fetched, "nothing is fetched twice"


def test_a_snapshot_is_used_without_network(
    hub: FakeHub, make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/small", make_model())
    folder = locate("someone/small").folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert locate("someone/small").folder == folder
    assert "hub cannot be reached" in refusal("someone/other")


def test_a_network_that_swallows_everything(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("copal_core.checkpoints.hub.TIMEOUT", 0.5)
        assert "hub cannot be reached" in refusal("someone/small")
        assert connections(silent) == 1  # one request was made, and not made again


def test_names_the_hub_does_not_know(hub: FakeHub, make_model: ModelFactory) -> None:
    hub.add("someone/small", make_model())
    assert "neither a local folder nor a public model" in refusal("someone/unknown")
    assert "no revision 'v9'" in refusal("someone/small@v9")
    hub.refused["meta/gated"] = (403, "GatedRepo")
    assert "licence" in refusal("meta/gated") and "HF_TOKEN" in refusal("meta/gated")
    hub.refused["someone/private"] = (401, "")
    assert "neither a local folder" in refusal("someone/private")
    hub.refused["someone/broken"] = (500, "")
    assert "hub cannot be reached" in refusal("someone/broken")


def test_pickles_are_not_fetched(hub: FakeHub, make_model: ModelFactory) -> None:
    hub.add("someone/pickled", make_model())
    files = hub.repositories["someone/pickled"]
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    assert "pickled weights only (pytorch_model.bin)" in refusal("someone/pickled")
    del files["pytorch_model.bin"]
    assert "no safetensors" in refusal("someone/pickled")
    assert not hub.fetched


def test_other_architectures_are_refused_before_the_weights(hub: FakeHub, make_model: ModelFactory) -> None:
    hub.add("someone/qwen", make_model())
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    hub.repositories["someone/qwen"]["config.json"] = json.dumps(config).encode()
    assert "Qwen2ForCausalLM" in refusal("someone/qwen")
    assert hub.fetched == ["config.json"]


def test_too_little_disk_space(
    hub: FakeHub, make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/small", make_model())
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    assert "GB free" in refusal("someone/small")


def test_giving_up_ends_the_download(hub: FakeHub, make_model: ModelFactory) -> None:
    hub.add("someone/small", make_model())

    class GivenUp(Exception):
        pass

    def stop(label: str, done: int, total: int) -> None:
        if label.startswith("Downloading"):
            raise GivenUp

    with pytest.raises(GivenUp):
        locate("someone/small", stop)
    assert locate("someone/small").describe().blocks == 2
