"""Tables of a command's result: drawn on a terminal, aligned words elsewhere."""

import sys
from collections.abc import Callable, Sequence

import click

Line = tuple[str, ...]


def print_table(header: Line, lines: Sequence[Line], striking: Callable[[Line], bool]) -> None:
    """Print lines under their header; on a terminal those that are `striking` stand out."""
    if not sys.stdout.isatty():
        widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
        for line in (header, *lines):
            click.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for line in lines:
        table.add_row(*line, style="bold red" if striking(line) else None)
    Console(markup=False).print(table)
