"""Which version of an op runs, and where its results go."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, get_args

from .._typing import Array
from ..errors import InputError

Mode = Literal["auto", "fused", "reference"]
MODES: tuple[Mode, ...] = get_args(Mode)
_mode: ContextVar[Mode] = ContextVar("mode", default="auto")


class Out(NamedTuple):
    """Where a result goes. With `adds` it is combined with what is there, by the rule that the op's contract names."""

    array: Array
    adds: bool = False


def onto(**arrays: Array | None) -> dict[str, Out]:
    """Destinations that results overwrite, such as `into=onto(out=running)`; None leaves an output to the memory."""
    return {field: Out(array) for field, array in arrays.items() if array is not None}


def check_mode(owner: str, mode: str) -> None:
    """InputError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise InputError(f"{owner}: no mode {mode!r}; choose 'auto', 'fused' or 'reference'")


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Bind every memory made inside to "fused" (a fallback is an error), "reference" or "auto"."""
    check_mode("using", mode)
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def current_mode() -> Mode:
    """The mode that `using` set here, "auto" outside of it."""
    return _mode.get()
