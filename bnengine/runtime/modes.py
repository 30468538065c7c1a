"""Which version of an op runs, and where its results go."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, get_args

from .._typing import Array
from ..validation import choice

Mode = Literal["auto", "fused", "reference"]
MODES: tuple[Mode, ...] = get_args(Mode)
_mode: ContextVar[Mode] = ContextVar("mode", default="auto")


class Out(NamedTuple):
    """The destination of a result. With `adds` it is combined with the array's values, by the rule of the op."""

    array: Array
    adds: bool = False


def onto(**arrays: Array | None) -> dict[str, Out]:
    """Return destinations that results overwrite: `into=onto(out=running)`. None leaves an output to the memory."""
    return {field: Out(array) for field, array in arrays.items() if array is not None}


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Set the mode of every memory made inside the `with` block.

    Args:
        mode: "fused" (a fallback is an error), "reference" or "auto".

    Raises:
        InputError: another mode.
    """
    token = _mode.set(choice("using", "mode", mode, MODES))
    try:
        yield
    finally:
        _mode.reset(token)


def current_mode() -> Mode:
    """Return the mode set by `using`, "auto" outside of it."""
    return _mode.get()
