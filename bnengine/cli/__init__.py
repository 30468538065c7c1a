"""The command line. Importing this package imports none of it; `main` does."""

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `arguments` (None for those of the process) and exit with its code."""
    try:
        from .app import cli

        cli.main(arguments, prog_name="bnengine")
    except KeyboardInterrupt:
        print("bnengine: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
