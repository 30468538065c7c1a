"""A C++ or CUDA source as a row of tokens, without its comments and directives."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<skipped> \s+ | //[^\n]* | /\*.*?\*/ | ^[ \t]*\#(?:\\\n|[^\n])* )
  | (?P<text> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' )
  | (?P<number> \.?\d(?:[eEpP][+-]\d|[\w.])* )
  | (?P<name> [A-Za-z_]\w* )
  | (?P<mark> <<= | -> | :: | \+\+ | -- | << | <= | >= | == | != | && | \|\| | [-+*/%&|^]= | . )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


class Token(NamedTuple):
    """Bytes [start, end) of the text."""

    kind: str  # "name", "number", "text" or "mark"
    text: str
    start: int
    end: int


def tokens_of(data: bytes) -> list[Token]:
    """The tokens of a text."""
    return _merged_shifts(list(_tokens(data)))


def _tokens(data: bytes) -> Iterator[Token]:
    for found in _TOKEN.finditer(data.decode("latin-1")):  # a character a byte
        kind = found.lastgroup
        if kind is not None and kind != "skipped":
            yield Token(kind, found.group(), found.start(), found.end())


def _merged_shifts(tokens: list[Token]) -> list[Token]:
    """Two > with a space on both sides are one operator."""
    merged: list[Token] = []
    for i, token in enumerate(tokens):
        last = merged[-1] if merged else None
        if token.text == ">" and last is not None and last.text == ">" and last.end == token.start:
            spaced = i + 1 < len(tokens) and tokens[i + 1].start > token.end and merged[-2].end < last.start
            if spaced:
                merged[-1] = Token("mark", ">>", last.start, token.end)
                continue
        merged.append(token)
    return merged
