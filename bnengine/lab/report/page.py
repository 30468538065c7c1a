"""One HTML page that needs nothing else: text, tables and pictures inside it, and no scripts."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Literal, NamedTuple

from ..._version import __version__
from .style import STYLE

GENERATOR = "bnengine report"
Tone = Literal["yes", "part", "no", "open"]


class Mark(NamedTuple):
    """A word on a coloured ground, such as a verdict; the word alone says it, the colour repeats it."""

    word: str
    tone: Tone


class Link(NamedTuple):
    """A word that leads to a section of the page by its name, or to a file beside it."""

    word: str
    target: str


Cell = str | Mark | Link


def printed(text: str) -> str:
    """Text of our own with the signs that a terminal spells out."""
    return text.replace("+-", "±").replace("<=", "≤").replace(">=", "≥")


class Page:
    """A page from top to bottom. Every text may hold anything: it is shown as it is, and never taken for markup."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._body: list[str] = [f"<h1>{escape(title)}</h1>"]
        self._open = False
        if lead:
            self._body.append(f'<p class="lead">{escape(lead)}</p>')

    def section(self, heading: str, name: str = "", mark: Mark | None = None) -> None:
        """Begin a section, which `Link(word, "#" + name)` leads to."""
        self._close()
        own = f' id="{escape(name)}"' if name else ""
        self._body.append(f"<section{own}>\n<h2>{escape(heading)}</h2>")
        if mark is not None:
            self._body.append(f"<p>{_cell(mark)}</p>")
        self._open = True

    def paragraph(self, text: str, head: str = "") -> None:
        """A paragraph, `head` in bold before it."""
        bold = f"<strong>{escape(head)}</strong> " if head else ""
        self._body.append(f"<p>{bold}{escape(text)}</p>")

    def table(
        self, caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Sequence[int] = (),
        wide: Sequence[int] = (0,), cards: bool = False, named: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """A table; `caption` names it for those who hear the page. Columns of `numbers` stand to the right.

        `cards`: on a phone each row becomes a card, where numbers and `named` columns carry their headers; else the
        table scrolls.
        """
        kinds = ["number" if i in numbers else "wide" if i in wide else "" for i in range(len(header))]
        classes = [f' class="{kind}"' if kind else "" for kind in kinds]
        cells = [
            f'{c} data-head="{escape(header[i])}"' if i in (*numbers, *named) else c for i, c in enumerate(classes)
        ]
        heads = [f'<th scope="col"{c}>{escape(w)}</th>' for w, c in zip(header, classes, strict=True)]
        kind = ' class="cards"' if cards else ""
        lines = [
            "<tr>" + "".join(f"<td{c}>{_cell(x)}</td>" for x, c in zip(row, cells, strict=True)) + "</tr>"
            for row in rows
        ]
        self._body.append(
            f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table{kind}>\n'
            f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
        )

    def picture(self, png: bytes, told: str, narrow: bytes | None = None) -> None:
        """A PNG on a white card, no wider than it was drawn; `told` in words; `narrow` takes its place on a phone."""
        width = int.from_bytes(png[16:20], "big") * 2 // 3  # where a PNG has its pixels, 150 to the inch as drawn
        other = f'<source media="(max-width: 40rem)" srcset="{_inline(narrow)}">' if narrow else ""
        image = f'<img src="{_inline(png)}" alt="{escape(told)}" style="--width: {width}px">'
        self._body.append(f"<figure><picture>{other}{image}</picture></figure>")

    def html(self) -> str:
        """The page as a file's content."""
        self._close()
        body = "\n".join(self._body)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="generator" content="{GENERATOR} {__version__}">\n'
            '<link rel="icon" href="data:,">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
            f"<footer>Written by bnengine {__version__}.</footer>\n</body>\n</html>\n"
        )

    def _close(self) -> None:
        if self._open:
            self._body.append("</section>")
        self._open = False


def _cell(cell: Cell) -> str:
    if isinstance(cell, Mark):
        return f'<span class="mark {cell.tone}">{escape(cell.word)}</span>'
    if isinstance(cell, Link):
        return f'<a href="{escape(cell.target)}">{escape(cell.word)}</a>'
    return escape(cell)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")
