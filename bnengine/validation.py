"""Checks of single arguments: integers, numbers, flags and choices.

Each check returns the value as a plain Python value. NumPy's scalars are accepted; bools and text are not numbers. An
error reads `where: NAME must be ..., got VALUE.`, and ends with what to do if the caller says it (`cure`).
"""

from collections.abc import Iterable
from math import inf, isfinite
from operator import index
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")


def integer(
    where: str, name: str, value: Any, *, least: int | None = None, most: int | None = None, cure: str = ""
) -> int:
    """Return the value as an int.

    Args:
        where: the layer, function or command that errors begin with.
        name: the argument.
        value: what `operator.index` takes, but no bool.
        least: the smallest value allowed; None for no limit.
        most: the largest value allowed; None for no limit.
        cure: a sentence that errors end with.

    Raises:
        InputError: no integer, or one out of range.
    """
    try:
        whole = None if _is_bool(value) else index(value)
    except TypeError:
        whole = None
    if whole is None or (least is not None and whole < least) or (most is not None and whole > most):
        limits = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
        raise _error(where, name, f"an integer{limits}", value, cure)
    return whole


def number(
    where: str,
    name: str,
    value: Any,
    *,
    least: float = -inf,
    most: float = inf,
    above: float = -inf,
    below: float = inf,
    cure: str = "",
) -> float:
    """Return the value as a finite float.

    Args:
        where: the layer, function or command that errors begin with.
        name: the argument.
        value: a real number, but no bool and no text.
        least: the smallest value allowed.
        most: the largest value allowed.
        above: the value must be larger than this.
        below: the value must be smaller than this.
        cure: a sentence that errors end with.

    Raises:
        InputError: no finite number, or one out of range.
    """
    real = _as_float(value)
    if real is None or not (least <= real <= most and above < real < below):
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("of at least", least), ("above", above), ("of at most", most), ("below", below))
            if isfinite(limit)
        ]
        raise _error(where, name, " ".join(["a finite number", " and ".join(limits)]).rstrip(), value, cure)
    return real


def flag(where: str, name: str, value: Any, *, cure: str = "") -> bool:
    """Return the value as a bool; InputError unless it is one."""
    if not _is_bool(value) or getattr(value, "shape", ()) != ():
        raise _error(where, name, "True or False", value, cure)
    return bool(value)


def choice(where: str, name: str, value: Any, choices: Iterable[T], *, cure: str = "") -> T:
    """Return the choice that equals the value; InputError if there is none. True is not 1."""
    known = tuple(choices)
    for candidate in known:
        if isinstance(value, type(candidate)) and _is_bool(value) == _is_bool(candidate) and value == candidate:
            return candidate
    words = [repr(candidate) for candidate in known]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    raise _error(where, name, listed, value, cure)


def _as_float(value: Any) -> float | None:
    if _is_bool(value) or isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__float__"):
        return None
    try:
        real = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return real if isfinite(real) else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _error(where: str, name: str, wanted: str, value: Any, cure: str) -> InputError:
    return InputError(f"{where}: {name} must be {wanted}, got {value!r}." + (f" {cure}" if cure else ""))
