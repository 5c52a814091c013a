"""`copal app`: open the app in the browser, on this machine only."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from copal_core.errors import RunError
from copal_core.system.shipped import app


def add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--port", type=int, default=8501)
    made.add_argument("--headless", action="store_true", help="do not open a browser")
    made.add_argument("--runs", type=Path, default=None, metavar="DIR", help="where runs are kept")


def open_app(options: argparse.Namespace) -> int:
    """Serve the app until it is interrupted. Raises RunError when its files are not there."""
    main = app()
    if not main.is_file():
        raise RunError(f"'{main}' is missing; install the package again")
    command = [sys.executable, "-m", "streamlit", "run", str(main), "--server.address", "127.0.0.1"]
    command += ["--server.port", str(options.port), "--server.headless", str(options.headless).lower()]
    environment = {**os.environ}
    if options.runs is not None:
        environment["COPAL_RUNS"] = str(options.runs.resolve())
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
