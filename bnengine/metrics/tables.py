"""Tables of results: rich draws them on a terminal; files and pipes get aligned text."""

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Row = Sequence["str | Text"]
UNWRAPPED = 10_000  # columns of text: wider than any table, so that no cell wraps


def _never(_row: Row) -> bool:
    return False


def table(
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    numbers: Collection[int] = (),
    emphasize: Callable[[Row], bool] = _never,
    lines: bool = True,
) -> "Table":
    """Build a table of rich.

    Args:
        columns: the headers; if all are empty, the table has no header.
        rows: the cells of each row. Text is printed literally: brackets are not markup.
        numbers: positions of the columns to align on the right.
        emphasize: whether a row is printed in bold red, where the output has colors.
        lines: whether to draw lines between header, columns and rows' edges.
    """
    from rich.table import Table
    from rich.text import Text

    built = Table(show_header=any(columns), header_style="bold" if lines else "")
    if not lines:
        built.box, built.pad_edge, built.padding = None, False, (0, 2, 0, 0)
    for i, column in enumerate(columns):
        built.add_column(Text(column), justify="right" if i in numbers else "left")
    for row in rows:
        cells = (Text(cell) if isinstance(cell, str) else cell for cell in row)
        built.add_row(*cells, style="bold red" if emphasize(row) else None)
    return built


def table_text(columns: Sequence[str], rows: Iterable[Row], *, numbers: Collection[int] = ()) -> str:
    """Return the table as lines of plain text, two spaces between columns, no spaces at line ends."""
    from rich.console import Console

    text = StringIO()
    Console(file=text, width=UNWRAPPED, color_system=None).print(table(columns, rows, numbers=numbers, lines=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def print_table(
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    numbers: Collection[int] = (),
    emphasize: Callable[[Row], bool] = _never,
) -> None:
    """Print the table: drawn by rich on a terminal, else as `table_text` returns it. For the arguments, see `table`."""
    if not sys.stdout.isatty():
        print(table_text(columns, rows, numbers=numbers))
        return
    from rich.console import Console

    Console().print(table(columns, rows, numbers=numbers, emphasize=emphasize))
