"""The mutations that only launchers of kernels have: what a launch gets besides its arrays."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from .operators import Change, Operator, swapped
from .source import Source

GIVEN = ("grid", "shared", "bound", "sums", "rows_apart", "waves")  # keywords of launches, all with a default
WIDTHS = ("vector_of", "alignment_of", "absent")  # each argument adds a condition


def _name(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _dropped(source: Source, call: Any, argument: ast.AST) -> Iterator[Change]:
    """A call without one of its arguments."""
    given = sorted([*call.args, *call.keywords], key=lambda a: source.span(a)[0])
    i = given.index(argument)
    start, end = source.span(argument)
    if i + 1 < len(given):
        yield start, source.span(given[i + 1])[0], ""
    elif i:
        yield source.span(given[i - 1])[1], end, ""


def swapped_groups(source: Source, node: Any) -> Iterator[Change]:
    """Two neighbors among the scalars or arrays of a launch, where they come in groups."""
    for a, b in pairwise(node.elts if isinstance(node, ast.Tuple) else node.args):
        if isinstance(a, ast.Starred) or isinstance(b, ast.Starred):
            yield from swapped(source, a, b)


def dropped_setting(source: Source, node: Any) -> Iterator[Change]:
    """A launch without its grid, its shared memory or what is bound to it."""
    for keyword in node.keywords:
        if keyword.arg in GIVEN:
            yield from _dropped(source, node, keyword)


def dropped_condition(source: Source, node: Any) -> Iterator[Change]:
    """A vector width that one array has no say in."""
    if _name(node) in WIDTHS:
        for argument in node.args[1:]:
            yield from _dropped(source, node, argument)


def never_adds(source: Source, node: Any) -> Iterator[Change]:
    """A launch that overwrites where it is to add."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "adds":
        yield *source.span(node), "False"


def wrong_layout(source: Source, node: Any) -> Iterator[Change]:
    """An array that is taken as it comes, or is not brought into the kernel's dtype."""
    if _name(node) == "ready":
        yield *source.span(node), source.text_of(node.args[1])
        if len(node.args) == 3:
            yield from _dropped(source, node, node.args[2])


CALLS = (ast.Call,)
LAUNCH_OPERATORS: dict[str, tuple[tuple[type[ast.AST], ...], Operator]] = {
    "swapped groups": ((ast.Tuple, ast.Call), swapped_groups),
    "dropped setting": (CALLS, dropped_setting),
    "dropped condition": (CALLS, dropped_condition),
    "never adds": (CALLS, never_adds),
    "wrong layout": (CALLS, wrong_layout),
}
