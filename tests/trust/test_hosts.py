"""Names that a server answers to: real handshakes with a real server, however it was started."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from copal_core.errors import InvalidValueError
from copal_core.system import sharing

ROOT = Path(__file__).resolve().parents[2]
STARTS = {
    "streamlit run": ("streamlit", "run", "app.py", "--server.headless", "true", "--server.port"),
    "copal app": ("copal_core", "app", "--headless", "--port"),
}


@pytest.fixture(scope="module", params=STARTS)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server behind a proxy that is called class.example."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    runs = str(tmp_path_factory.mktemp("runs"))
    server = subprocess.Popen(
        [sys.executable, "-m", *STARTS[request.param], str(port)],
        cwd=ROOT,
        env={**os.environ, "COPAL_HOSTS": "class.example, *.school.example", "COPAL_RUNS": runs},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # `copal app` is a process of two
    )
    try:
        deadline = time.monotonic() + 120
        while not listens(port):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the app did not start within 120 s"
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def listens(port: int) -> bool:
    try:
        return status(port, "/_stcore/health", {"Host": "localhost"}) == 200
    except OSError:
        return False


def status(port: int, path: str, headers: dict[str, str]) -> int:
    return answer(port, path, headers).status


def answer(port: int, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse()
    finally:
        connection.close()


def handshake(port: int, host: str, origin: str) -> int:
    """Ask for the app's WebSocket as a browser does whose page comes from `origin`; 101 is yes."""
    upgrade = {
        "Host": host,
        "Origin": origin,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    return status(port, "/_stcore/stream", upgrade)


def test_the_handshake_of_a_foreign_name_is_refused(port: int) -> None:
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "school.example.evil",
        "[",
    ):
        assert handshake(port, host, f"http://{host}") == 400
        assert status(port, "/", {"Host": host}) == 400
    assert handshake(port, f"localhost:{port}", "http://evil.example") == 403


def test_this_machine_and_the_proxy_are_answered(port: int) -> None:
    own = [f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]", socket.gethostname())]
    for host in (*own, "class.example", "a.school.example"):
        assert handshake(port, host, f"http://{host}") == 101
        assert status(port, "/", {"Host": host}) == 200


def test_no_page_may_frame_the_app(port: int) -> None:
    assert answer(port, "/", {"Host": "localhost"}).getheader("X-Frame-Options") == "DENY"


@pytest.mark.parametrize("name", ["https://class.example", "class.example:443", "class*", "a b", "*.", "::1"])
def test_what_is_no_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPAL_HOSTS", f"class.example,{name}")
    with pytest.raises(InvalidValueError, match="COPAL_HOSTS"):
        sharing.hosts(None)


def test_the_address_that_it_listens_at_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COPAL_HOSTS", raising=False)
    assert "192.0.2.7" in sharing.hosts("192.0.2.7")
    assert "[2001:db8::7]" in sharing.hosts("2001:db8::7")
    assert "class.example" not in sharing.hosts(None)
