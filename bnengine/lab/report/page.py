"""One HTML page without scripts that needs no other file: text, tables and pictures, drawn by templates/page.html."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..._version import __version__
from ...errors import InputError

if TYPE_CHECKING:
    import jinja2

GENERATOR = "bnengine report"
Tone = Literal["yes", "part", "no", "open"]


class Mark(NamedTuple):
    """A word on a colored ground, such as a verdict; the color repeats what the word says."""

    word: str
    tone: Tone


class Link(NamedTuple):
    """A word that leads to a section of the page by its name, or to a file in the page's folder."""

    word: str
    target: str


Cell = str | Mark | Link


class Paragraph(NamedTuple):
    """Text after a bold `head`."""

    text: str
    head: str
    kind: str = "paragraph"


class Column(NamedTuple):
    """A header and the CSS class of its cells; `named`: on a phone, each cell repeats the header."""

    name: str
    kind: str
    named: bool


class Table(NamedTuple):
    """Columns and rows; screen readers read the caption."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    cards: bool
    kind: str = "table"

    def pairs(self, row: Sequence[Cell]) -> Iterator[tuple[Column, Cell]]:
        """Pair the cells of a row with their columns."""
        return zip(self.columns, row, strict=True)


class Picture(NamedTuple):
    """A PNG as a data URL, drawn no wider than `width` pixels; on a phone `narrow` takes its place."""

    source: str
    description: str
    width: int
    narrow: str
    kind: str = "picture"


@dataclass
class Section:
    """A heading with what follows it."""

    heading: str = ""
    name: str = ""
    mark: Mark | None = None
    blocks: list[Paragraph | Table | Picture] = field(default_factory=list)


def printed(text: str) -> str:
    """Return our own text with the signs that a terminal spells out."""
    return text.replace("+-", "±").replace("<=", "≤").replace(">=", "≥")


def templates(owner: str) -> "jinja2.Environment":
    """Return the templates; texts in them are escaped. InputError where jinja2 is missing."""
    try:
        import jinja2
    except ImportError as error:
        raise InputError(f"{owner}: needs jinja2 ({error}). Install it: pip install 'bnengine[report]'") from error
    loader = jinja2.PackageLoader("bnengine.lab.report")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


class Page:
    """A page from top to bottom. Any text is shown literally, never taken for markup."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title, self.lead = title, lead
        self.sections = [Section()]

    def section(self, heading: str, name: str = "", mark: Mark | None = None) -> None:
        """Begin a section; `Link(word, "#" + name)` leads to it."""
        self.sections.append(Section(heading, name, mark))

    def paragraph(self, text: str, head: str = "") -> None:
        """Add a paragraph, `head` in bold before it."""
        self.sections[-1].blocks.append(Paragraph(text, head))

    def table(
        self, caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Sequence[int] = (),
        wide: Sequence[int] = (0,), cards: bool = False, named: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Add a table.

        Args:
            caption: is read by screen readers.
            header: the names of the columns.
            rows: the cells.
            numbers: the columns that are aligned on the right.
            wide: the columns that hold sentences.
            cards: on a phone, make a card of each row, where numbers and `named` columns repeat their headers; without
                it the table scrolls.
            named: further columns that repeat their headers.
        """
        kinds = ["number" if i in numbers else "wide" if i in wide else "" for i in range(len(header))]
        columns = [Column(name, kinds[i], i in (*numbers, *named)) for i, name in enumerate(header)]
        self.sections[-1].blocks.append(Table(caption, columns, rows, cards))

    def picture(self, png: bytes, description: str, narrow: bytes | None = None) -> None:
        """Add a PNG of 150 pixels per inch; `narrow` takes its place on a phone."""
        width = int.from_bytes(png[16:20], "big") * 2 // 3  # a PNG's header has its width there
        picture = Picture(_inline(png), description, width, _inline(narrow) if narrow else "")
        self.sections[-1].blocks.append(picture)

    def html(self) -> str:
        """Return the page as a file's content. InputError where jinja2 is missing."""
        page = templates("report").get_template("page.html")
        return page.render(page=self, version=__version__, generator=GENERATOR)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")
