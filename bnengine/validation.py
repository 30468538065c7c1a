"""Checks of single arguments: integers, numbers and choices, in one wording.

Each check takes `where`, with which its error begins, the argument's `name` and its value, and returns a plain Python
value. NumPy's scalars are accepted; bools and text are not numbers.
"""

from collections.abc import Iterable
from math import inf, isfinite
from operator import index
from typing import Any

from .errors import InputError


def integer(where: str, name: str, value: Any, *, least: int, most: int | None = None, cure: str = "") -> int:
    """The value as an int.

    Args:
        where: the layer, function or command that errors begin with.
        name: the argument.
        value: what `operator.index` takes, but no bool.
        least: the smallest value allowed.
        most: the largest value allowed; None for no limit.
        cure: a sentence that errors end with.

    Raises:
        InputError: no integer, or one out of range.
    """
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = None if _is_bool(value) else index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise _error(where, name, f"an integer {bounds}", value, cure)
    return number


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
    """The value as a finite float.

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
    found = _as_float(value)
    if found is None or not (least <= found <= most and above < found < below):
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("of at least", least), ("above", above), ("of at most", most), ("below", below))
            if isfinite(limit)
        ]
        raise _error(where, name, " ".join(["a finite number", " and ".join(limits)]).rstrip(), value, cure)
    return found


def choice(where: str, name: str, value: Any, choices: Iterable[Any], *, cure: str = "") -> Any:
    """The value, one of some choices; InputError for another one."""
    known = tuple(choices)
    for one in known:
        if type(value) is type(one) and value == one:
            return one
    words = [repr(one) for one in known]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    raise _error(where, name, listed, value, cure)


def _as_float(value: Any) -> float | None:
    if _is_bool(value) or isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__float__"):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if isfinite(found) else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _error(where: str, name: str, wanted: str, value: Any, cure: str) -> InputError:
    return InputError(f"{where}: {name} must be {wanted}, got {value!r}." + (f" {cure}" if cure else ""))
