"""`python -m copal_core`: the command line."""

import sys

from copal_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
