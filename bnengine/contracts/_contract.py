"""How a module of this package gives an op its contract."""

from collections.abc import Callable, Iterator
from typing import Any

from ..ops import Contract, Example, Op


def contract(
    op: Op[Any],
    examples: Callable[[Any, str], Iterator[Example]],
    bound: Callable[..., Any],
    check: Callable[..., None] | None = None,
) -> None:
    """Give an op its contract."""
    op.contract = Contract(examples, bound, check)
