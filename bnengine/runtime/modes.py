"""Which version of an op runs, and where its results go."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from .._typing import Array
from ..errors import InputError

Mode = Literal["auto", "fused", "reference"]
_mode: ContextVar[Mode] = ContextVar("mode", default="auto")


class Into(NamedTuple):
    """Where a result goes. With `adds` it is combined with what is there, by the rule that the op's contract names."""

    array: Array
    adds: bool = False


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Bind every memory made inside to "fused" (a fallback is an error), "reference" or "auto"."""
    if mode not in ("auto", "fused", "reference"):
        raise InputError(f"using: no mode {mode!r}; choose 'auto', 'fused' or 'reference'")
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def current_mode() -> Mode:
    """The mode that `using` set here, "auto" outside of it."""
    return _mode.get()
