"""One function that turns what a user names into a data set."""

import os
from pathlib import Path

from ..errors import DataError
from .dataset import Dataset
from .digits import load_digits


def load(spec: str | os.PathLike[str] | Dataset, *, target: str | None = None, need_targets: bool = True) -> Dataset:
    """The data set that `spec` names.

    Args:
        spec: "digits", the digits that come with the package (a folder of that name is "./digits"); a folder of IDX
            files (MNIST's names, plain or .gz) or of x.npy and y.npy; an images file of such a folder; a .csv file with
            a header; an .npz archive with x and y; an x.npy with y.npy beside it, memory-mapped; a Dataset as it is.
        target: the target column, for .csv only.
        need_targets: whether data without targets are an error; else `y` is None.

    Raises:
        DataError: no such file, an unknown kind, or damaged data; the message names file and place.
    """
    # Imported here: with them come csv, gzip, tokenize and zipfile, which `import bnengine` need not wait for.
    from .idx import is_idx_name, load_idx
    from .npy import load_npy, load_npz
    from .tables import load_csv

    if isinstance(spec, Dataset):
        return spec
    text = os.fspath(spec)
    path = Path(text)
    suffix = path.suffix.lower()
    if target is not None and suffix != ".csv":
        raise DataError(f"{text}: a target column ({target!r}) is named, which only .csv files have")
    if text == "digits":
        return load_digits()
    if not path.exists():
        raise DataError(f"{text}: there is no such file or folder (looked in {Path.cwd()}); built-in data are: digits")
    if path.is_dir():
        pair = path / "x.npy"
        return load_npy(pair, need_targets=need_targets) if pair.exists() else load_idx(path, need_targets=need_targets)
    if suffix == ".csv":
        return load_csv(path, target=target, need_targets=need_targets)
    if suffix == ".npz":
        return load_npz(path, need_targets=need_targets)
    if suffix == ".npy":
        return load_npy(path, need_targets=need_targets)
    if is_idx_name(path.name):
        return load_idx(path, need_targets=need_targets)
    raise DataError(
        f"{text}: not a kind of data that is read here; give a .csv, .npz or x.npy file, a folder of IDX files, "
        f"or digits"
    )
