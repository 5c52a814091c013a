"""`python -m copal_core`: the command line."""

import os
import sys


def main() -> int:
    """On a shared server a process waits for its turn first, before anything large is imported."""
    if "COPAL_TICKET" in os.environ:
        from copal_core.system import queueing

        queueing.wait()
    from copal_core.cli.main import main as run_command

    return run_command()


if __name__ == "__main__":
    sys.exit(main())
