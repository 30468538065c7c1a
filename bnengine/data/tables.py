"""Text tables: a header, columns of numbers, and a target column by its name."""

import csv
import gzip
import math
import re
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from .._typing import Array
from ..errors import DataError, TargetMissing
from .dataset import Dataset

_INTEGER = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
EXACT = 2.0**53  # whole numbers from here on may not be float64 numbers
_PADDED = re.compile(r"[+-]?0\d+", re.ASCII)


class Separator(NamedTuple):
    """The character between two fields, and its name in errors."""

    character: str
    name: str


COMMA = Separator(",", "commas")


def load_table(
    path: Path, *, target: str | None = None, need_targets: bool = True, separator: Separator = COMMA
) -> Dataset:
    """Read a table in UTF-8 with a header, plain or compressed by gzip; all columns but the target are float64.

    Fields may be quoted; blanks around a field do not count; blank lines are skipped. Targets are int64 or uint64 if
    all are written as integers that one of them holds, float64 if all are numbers, else strings ("007" and integers of
    more digits are strings: a number would lose some).

    Args:
        path: the file.
        target: the name of the target column.
        need_targets: whether a file without that column is an error; if not, `y` is None.
        separator: the character between fields.

    Raises:
        DataError: no header, no such target, a missing value, or one that is not a number; the message names
            line and column.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        opened = gzip.open if compressed else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            return _read(text, path, target, need_targets, separator)
    except UnicodeDecodeError as reason:
        raise DataError(f"{path}: not UTF-8 text ({reason}). Save the file as UTF-8.") from reason
    except (EOFError, zlib.error, gzip.BadGzipFile) as reason:
        raise DataError(f"{path}: the compressed file is truncated or damaged ({reason}). Fetch it again.") from reason
    except OSError as reason:
        raise DataError(f"{path}: cannot be read ({reason}). Check the path.") from reason


def _read(file: TextIO, path: Path, target: str | None, need_targets: bool, separator: Separator) -> Dataset:
    lines = _lines(file, path, separator)
    header = _header(lines, path, separator)
    at = _target_position(header, path, target, need_targets, separator)
    columns = tuple(name for i, name in enumerate(header) if i != at)
    values, numbers, labels = array("d"), array("q"), []
    for number, fields in lines:
        if len(fields) != len(header):
            raise DataError(
                f"{path}: line {number} must have {len(header)} fields, as the header has, got {len(fields)}."
            )
        if at is not None:
            labels.append(fields.pop(at).strip())
        values.extend(_numbers(fields, path, number, columns))
        numbers.append(number)
    if not numbers:
        raise DataError(f"{path}: there are no rows below the header. It needs at least one.")
    x = np.frombuffer(values, dtype=np.float64).reshape(len(numbers), len(columns))
    y = None if at is None else _targets(labels, numbers, path, header[at])
    return Dataset(x=x, y=y, name=str(path), columns=columns, target=target)


def _lines(file: TextIO, path: Path, separator: Separator) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the line that a record ends on, its fields)."""
    reader = csv.reader(file, delimiter=separator.character, skipinitialspace=True, strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as reason:
            raise DataError(f"{path}: line {reader.line_num}: {reason}.") from reason
        if fields:
            yield reader.line_num, fields


def _header(lines: Iterator[tuple[int, list[str]]], path: Path, separator: Separator) -> list[str]:
    number, fields = next(lines, (0, []))
    if not fields:
        raise DataError(f"{path}: the file is empty. It needs a header line and rows below it.")
    header = [name.strip() for name in fields]
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"{path}: line {number}: column {i + 1} has no name. Give it one.")
        if name in header[:i]:
            raise DataError(
                f"{path}: line {number}: two columns are called {name!r}. "
                f"{_cure(header, separator, 'Give each its own name')}."
            )
    return header


def _target_position(
    header: list[str], path: Path, target: str | None, need_targets: bool, separator: Separator
) -> int | None:
    shown = ", ".join(map(repr, header[:12])) + (f" ... ({len(header)} in all)" if len(header) > 12 else "")
    if target is None:
        if need_targets:
            raise TargetMissing(path, shown)
        return None
    if target not in header:
        if not need_targets:
            return None
        raise DataError(
            f"{path}: there is no target column {target!r}. The columns are {shown}. "
            f"{_cure(header, separator, 'Name one of them')}."
        )
    if len(header) == 1:
        raise DataError(
            f"{path}: there is no column besides the target {target!r}. Fields are separated by {separator.name}."
        )
    return header.index(target)


def _cure(header: list[str], separator: Separator, ordinary: str) -> str:
    if all(_is_number(name) for name in header):
        return "The first line must be a header of column names, and this one holds only numbers"
    return f"Fields must be separated by {separator.name}" if len(header) == 1 else ordinary


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _numbers(fields: list[str], path: Path, line: int, columns: tuple[str, ...]) -> list[float]:
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = [math.nan]
    # float() accepts "1_000"; in a table it is a mistake.
    if math.isfinite(sum(numbers)) and "_" not in "".join(fields) and max(map(abs, numbers), default=0) < EXACT:
        return numbers
    for name, field in zip(columns, fields, strict=True):
        place = f"{path}: line {line}, column {name!r}"
        if field.strip() == "" or field.strip().lower() in ("nan", "+nan", "-nan"):
            shown = "missing" if field.strip() == "" else repr(field)
            raise DataError(f"{place}: the value is {shown}. Fill it in or leave the row out.")
        if not _is_number(field):
            raise DataError(f"{place}: the value must be a number, got {field!r}.")
        if not math.isfinite(float(field)):
            raise DataError(f"{place}: the value must be a finite number, got {field!r}.")
        if _INTEGER.fullmatch(field.strip()) and int(field) != float(field):
            raise DataError(
                f"{place}: the value must be a whole number that float64 holds, got {field!r}, which it would round. "
                "Subtract the column's least value, or leave the column out."
            )
    return numbers


def _targets(labels: list[str], numbers: "array[int]", path: Path, target: str) -> Array:
    for text, line in zip(labels, numbers, strict=True):
        if text == "":
            raise DataError(f"{path}: line {line}, column {target!r}: the target is missing. Leave the row out.")
    if all(_INTEGER.fullmatch(text) for text in labels):
        whole = [int(text) for text in labels]
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= min(whole) and max(whole) <= np.iinfo(dtype).max:
                return np.asarray(whole, dtype=dtype)
        return np.asarray(labels, dtype=np.str_)  # a float64 would lose digits
    if any(not _is_number(text) or _PADDED.fullmatch(text) for text in labels):
        return np.asarray(labels, dtype=np.str_)
    values = np.asarray([float(text) for text in labels])
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(
            f"{path}: line {numbers[row]}, column {target!r}: the target is {labels[row]!r}. Leave the row out."
        )
    return values
