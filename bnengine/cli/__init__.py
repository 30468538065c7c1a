"""The command line: `bnengine train | evaluate | predict | info`. Nothing of it is imported before `main` is called."""

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `arguments` (None: the process's own) and exit: 0, 1 (failed run), 2 (mistake), 130."""
    try:
        from .app import cli

        cli.main(arguments, prog_name="bnengine")
    except KeyboardInterrupt:
        print("bnengine: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
