"""Contracts of ops, and lookups of the rows that they are made of."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import InputError
from ..ops import Contract, Example, Op

T = TypeVar("T")


def row_of(table: Mapping[str, T], name: str, *, what: str, write: str) -> T:
    """Return the row of an op's part; InputError if it has none.

    Args:
        table: rows by name.
        name: of an activation or a rule.
        what: "activation" or "rule".
        write: where to write a missing row: "TABLE of FILE".
    """
    if name not in table:
        raise InputError(f"contracts: the {what} {name!r} has no row. Write one in {write}.")
    return table[name]


def contract(
    op: Op[Any],
    examples: Callable[[Any, str], Iterator[Example]],
    bound: Callable[..., Any],
    check: Callable[..., None] | None = None,
) -> None:
    """Give an op its contract."""
    op.contract = Contract(examples, bound, check)
