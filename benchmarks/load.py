"""A classroom: twenty sessions read the recorded run at once, and five people start runs on a shared server.

A session is what a browser tab is to the server: a WebSocket that asks for pages and receives all they hold. The
drawing, which twenty readers' own machines do, is left out. Readers pause between pages; `--pause 0` has all of them
ask at the same instant. Prints the median page against one session alone, the server's memory by round, and the order
in which five people were served.

    python -m benchmarks.load --rounds 10 --sessions 20
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks.pages import ROOT, serve
from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment import processes
from copal_core.store.run_store import RunStore
from copal_core.store.runs import RECORDED, Runs
from copal_core.system import sharing

PAGES = ("sensitivity", "stasis", "runs", "report")
ALLOWED = 6.0  # times what one session takes alone
_FINISHED, _AGAIN = 0, 2  # how a script may end: well, or early because it runs once more
_PATIENCE = 120.0


class Session:
    """One tab."""

    def __init__(self, address: str, run: str) -> None:
        self._address = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
        self._run = run

    async def __aenter__(self) -> Session:
        self._socket = await websockets.connect(
            self._address, subprotocols=[websockets.Subprotocol("streamlit")], max_size=None
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._socket.close()

    async def open(self, page: str) -> float:
        """Seconds from asking for a page to its last message. Raises RuntimeError when the page shows a defect."""
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = f"run={self._run}"
        started = time.perf_counter()
        await self._socket.send(message.SerializeToString())
        async with asyncio.timeout(_PATIENCE):
            while True:
                received = ForwardMsg()
                received.ParseFromString(bytes(await self._socket.recv()))
                kind = received.WhichOneof("type")
                if kind == "delta" and received.delta.new_element.WhichOneof("type") == "exception":
                    raise RuntimeError(f"{page}: {received.delta.new_element.exception.type}")
                if kind == "script_finished" and received.script_finished == _FINISHED:
                    return time.perf_counter() - started
                if kind == "script_finished" and received.script_finished != _AGAIN:
                    raise RuntimeError(f"{page} ended with {received.script_finished}")


async def read(session: Session, pause: float, chance: random.Random) -> list[float]:
    """Every page once, in an order of its own, with the pauses of a reader."""
    found = []
    for page in chance.sample(PAGES, len(PAGES)):
        await asyncio.sleep(chance.uniform(0, 2 * pause))
        found.append(await session.open(page))
    return found


async def classroom(
    address: str, run: str, sessions: int, rounds: int, pause: float, memory: psutil.Process
) -> tuple[list[float], list[float], int]:
    """Seconds of every page, the server's MiB after each round, and how many sessions failed."""
    seconds: list[float] = []
    mebibytes: list[float] = []
    failed = 0
    opened = [await Session(address, run).__aenter__() for _ in range(sessions)]
    try:
        for number in range(rounds):
            chances = [random.Random(1000 * number + index) for index in range(sessions)]
            outcomes = await asyncio.gather(
                *(read(session, pause, chance) for session, chance in zip(opened, chances, strict=True)),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    failed += 1
                    print(f"failed: {type(outcome).__name__}: {outcome}")
                else:
                    seconds += outcome
            mebibytes.append(memory.memory_info().rss / 2**20)
    finally:
        for session in opened:
            await session.__aexit__()
    return seconds, mebibytes, failed


def in_turn(folder: Path, people: int) -> list[str]:
    """`people` start a run of tiny, one after another, on a server that computes one at a time; who began when."""
    os.environ.update(COPAL_SHARED="1", COPAL_SHARED_JOBS="1", COPAL_RUNS=str(folder))
    small = Protocol(calibration=Windows(count=4, length=64), evaluation=Windows(count=2, length=64))
    stores: dict[str, RunStore] = {}
    for number in range(1, people + 1):
        sharing.identify_by(lambda number=number: f"person {number}")  # type: ignore[misc]
        config = RunConfig(
            checkpoint="tiny", domains=("python-code",), methods=("wanda:restart",), protocol=small
        )
        stores[f"person {number}"] = Runs(folder).create(config)
        processes.start(stores[f"person {number}"])
    began: list[str] = []
    deadline = time.monotonic() + 600
    while len(began) < people and time.monotonic() < deadline:
        for person, store in stores.items():
            state = store.written_state().status
            if person not in began and state in ("running", "done"):
                began.append(person)
        time.sleep(0.1)
    while any(store.is_locked() for store in stores.values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    print("   ".join(f"{person}: {store.state().status}" for person, store in stores.items()))
    return began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds a reader spends on a page")
    parser.add_argument("--people", type=int, default=5)
    options = parser.parse_args()
    run = sorted(path.name for path in RECORDED.iterdir() if (path / "run.json").is_file())[0]
    with tempfile.TemporaryDirectory() as temporary:
        process, address = serve(ROOT / "app.py", ROOT, Path(temporary) / "runs")
        try:
            memory = psutil.Process(process.pid)
            asyncio.run(
                classroom(address, run, 1, 2, 0.0, memory)
            )  # imports and first readings are not measured
            alone, _, _ = asyncio.run(classroom(address, run, 1, 5, 0.2, memory))
            several, mebibytes, failed = asyncio.run(
                classroom(address, run, options.sessions, options.rounds, options.pause, memory)
            )
        finally:
            process.kill()
        ratio = statistics.median(several) / statistics.median(alone)
        print(f"one session alone: median page {statistics.median(alone):.2f} s over {len(alone)}")
        print(
            f"{options.sessions} sessions: median {statistics.median(several):.2f} s over {len(several)}, "
            f"slowest {max(several):.2f} s; ratio {ratio:.1f} (at most {ALLOWED:g}); {failed} sessions failed"
        )
        half = len(mebibytes) // 2
        growth = (
            statistics.median(mebibytes[half:]) / statistics.median(mebibytes[:half]) - 1 if half else 0.0
        )
        print(f"server MiB by round: {' '.join(f'{one:.0f}' for one in mebibytes)}; later half {growth:+.1%}")
        if options.people:
            print("served in the order:", ", ".join(in_turn(Path(temporary) / "shared", options.people)))


if __name__ == "__main__":
    main()
