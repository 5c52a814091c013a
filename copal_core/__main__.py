"""`python -m copal_core`: the command line."""

import os
import sys


def main() -> int:
    """On a shared server a process waits for its turn first, before anything large is imported."""
    if "COPAL_TICKET" in os.environ:
        from copal_core import turns

        turns.wait()
    from copal_core import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
