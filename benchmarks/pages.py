"""How fast the pages are: time to a finished first paint against a bare Streamlit page, and server time of a selection.

One browser, both servers running, interleaved; the median of the rounds is printed. Needs chromium.

    python -m benchmarks.pages --rounds 7
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
_BARE = "import streamlit as st\nst.write('hello')\n"
_READY = "[data-testid='stApp'][data-test-script-state='notRunning']"


def serve(script: Path, folder: Path, runs: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server for `script`, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.port", str(port), "--server.headless", "true", "--server.address", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(script), *options],
        cwd=folder,
        env={**os.environ, "COPAL_RUNS": str(runs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
                return process, url
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{script} did not start")


def paint(context: BrowserContext, url: str, sign: str) -> tuple[float, float]:
    """Seconds from navigation until `sign` is visible, and until the page is finished, in a session of its own.

    The browser is one that has been here before: Streamlit's own scripts are in its cache on both sides.
    """
    page = context.new_page()
    try:
        started = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.locator(sign).first.wait_for(state="visible", timeout=60_000)
        painted = time.perf_counter() - started
        page.locator(_READY).wait_for(timeout=60_000)
        return painted, time.perf_counter() - started
    finally:
        page.close()


def selections() -> list[tuple[str, float]]:
    """Server seconds of each selection on the recorded run's pages, without a browser."""
    from streamlit.testing.v1 import AppTest

    found = []
    for name in ("sensitivity", "stasis"):
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        app.run()
        app.switch_page(f"pages/{name}/page.py").run()
        for index, box in enumerate(app.selectbox):
            if len(box.options) < 2:
                continue
            times = []
            for turn in range(3):
                app.selectbox[index].select_index(turn % 2)
                started = time.perf_counter()
                app.run()
                times.append(time.perf_counter() - started)
            found.append((f"{name}: {box.label}", statistics.median(times)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bare.py").write_text(_BARE, encoding="utf-8")
        bare, bare_url = serve(folder / "bare.py", folder, folder / "runs")
        app, app_url = serve(ROOT / "app.py", ROOT, folder / "runs")
        try:
            _paints(bare_url, app_url, rounds)
        finally:
            bare.kill()
            app.kill()
    print(f"\n{'selection':44}{'server s':>10}")
    for label, seconds in selections():
        print(f"{label:44}{seconds:10.2f}")


def _paints(bare_url: str, app_url: str, rounds: int) -> None:
    cases = {
        "bare page": (bare_url, "text=hello"),
        "first page": (f"{app_url}/", "h1"),
        "sensitivity": (f"{app_url}/sensitivity", ".js-plotly-plot"),
        "stasis": (f"{app_url}/stasis", ".js-plotly-plot"),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for _ in range(rounds + 1):
            for name, (url, sign) in cases.items():
                seen[name].append(paint(context, url, sign))
        browser.close()
    reference = [pair[0] for pair in seen["bare page"][1:]]  # the first round warms the servers
    print(f"{'page':14}{'paint s':>10}{'ratio':>8}{'finished s':>12}{'ratio':>8}")
    for name, pairs in seen.items():
        first = statistics.median(pair[0] for pair in pairs[1:])
        last = statistics.median(pair[1] for pair in pairs[1:])
        base = statistics.median(reference)
        print(f"{name:14}{first:10.2f}{first / base:8.2f}{last:12.2f}{last / base:8.2f}")


if __name__ == "__main__":
    main()
