"""Data formats, one row each, and `load`, which reads the data set that a user names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .dataset import Dataset
from .digits import load_digits

# Readers are imported when they run: they import csv, gzip, tokenize and zipfile, which would slow `import bnengine`.


def _read_table(path: Path, *, target: str | None, need_targets: bool) -> Dataset:
    from .tables import load_table

    return load_table(path, target=target, need_targets=need_targets)


def _read_tsv(path: Path, *, target: str | None, need_targets: bool) -> Dataset:
    from .tables import Separator, load_table

    return load_table(path, target=target, need_targets=need_targets, separator=Separator("\t", "tabs"))


def _read_npz(path: Path, *, need_targets: bool) -> Dataset:
    from .npy import load_npz

    return load_npz(path, need_targets=need_targets)


def _read_npy(path: Path, *, need_targets: bool) -> Dataset:
    from .npy import load_npy

    return load_npy(path / "x.npy" if path.is_dir() else path, need_targets=need_targets)


def _read_idx(path: Path, *, need_targets: bool) -> Dataset:
    from .idx import load_idx

    return load_idx(path, need_targets=need_targets)


def _is_idx(path: Path) -> bool:
    from .idx import is_idx_name

    return path.is_dir() or is_idx_name(path.name)


class Format(NamedTuple):
    """A data format.

    Attributes:
        name: what errors and help call it.
        matches: whether a path has this format.
        read: the reader; it takes (path, *, need_targets), and `target` if the format has a target column.
        has_target_column: whether the targets are a named column.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[..., Dataset]
    has_target_column: bool = False


def by_suffix(suffix: str, read: Callable[..., Dataset], *, has_target_column: bool = False) -> Format:
    """Return the format of files whose names end in `suffix`."""
    return Format(suffix, lambda path: path.name.lower().endswith(suffix), read, has_target_column)


def _is_npy(path: Path) -> bool:
    return (path / "x.npy").exists() if path.is_dir() else path.suffix.lower() == ".npy"


FORMATS = (
    by_suffix(".csv", _read_table, has_target_column=True),
    by_suffix(".csv.gz", _read_table, has_target_column=True),
    by_suffix(".tsv", _read_tsv, has_target_column=True),
    by_suffix(".npz", _read_npz),
    Format("x.npy", _is_npy, _read_npy),
    Format("a folder of IDX files", _is_idx, _read_idx),
)  # the first that matches reads


def with_target_column() -> str:
    """List the formats with a target column, for help and errors: ".csv, .csv.gz or .tsv"."""
    return _listed([fmt.name for fmt in FORMATS if fmt.has_target_column])


def takes_target(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name has a target column."""
    return any(fmt.has_target_column and fmt.matches(Path(path)) for fmt in FORMATS)


def load(spec: str | os.PathLike[str] | Dataset, *, target: str | None = None, need_targets: bool = True) -> Dataset:
    """Load a data set.

    Args:
        spec: "digits" for the digits that come with the package (a folder of that name is "./digits"); a folder of IDX
            files (MNIST's names, plain or .gz) or of x.npy and y.npy; an images file of such a folder; a table with
            a header; an .npz archive with x and y; an x.npy with y.npy next to it, memory-mapped; or a Dataset, which
            is returned unchanged.
        target: the target column of a table.
        need_targets: whether data without targets are an error; if not, `y` is None.

    Returns:
        The data set, checked.

    Raises:
        DataError: no such file, an unknown format, or damaged data; the message names file and place.
    """
    if isinstance(spec, Dataset):
        return spec
    text = os.fspath(spec)
    path = Path(text)
    if target is not None and not takes_target(path):
        raise DataError(
            f"{text}: target column {target!r} given, which only {with_target_column()} files have. Leave it out."
        )
    if text == "digits":
        return load_digits()
    if not path.exists():
        raise DataError(
            f"{text}: there is no such file or folder (looked in {Path.cwd()}). Check the path, or "
            "name the built-in data: digits."
        )
    for fmt in FORMATS:
        if fmt.matches(path):
            options = {"target": target} if fmt.has_target_column else {}
            return fmt.read(path, need_targets=need_targets, **options)
    raise DataError(
        f"{text}: this data format cannot be read. Name {_listed([fmt.name for fmt in FORMATS])}, or digits."
    )


def _listed(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
