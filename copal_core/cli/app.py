"""`copal app`: open the app in the browser, on this machine only."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from copal_core.cli.options import AddCommand, with_runs
from copal_core.errors import RunError
from copal_core.system.shipped import app


def add_commands(command: AddCommand) -> None:
    """Add the command to the parser."""
    added = command("app", _open_app, "Open the app in the browser, on this machine only.", json=False)
    added.add_argument("--port", type=int, default=8501)
    added.add_argument("--headless", action="store_true", help="do not open a browser")
    with_runs(added)


def _open_app(options: argparse.Namespace) -> int:
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
