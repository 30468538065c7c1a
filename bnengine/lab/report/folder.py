"""Writes the folder of a report, a page and its tables, and refuses folders that hold anything else."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from ...errors import InputError
from ...storage.atomic import remove_leftovers, replace_file
from .page import GENERATOR, templates

PAGE, FIGURES, SERIES, STATISTICS = FILES = "index.html", "figures.csv", "series.csv", "statistics.csv"


def check_folder(owner: str, folder: Path) -> None:
    """Check that `folder` is new, empty, or holds only a report, which the new one replaces.

    Commands call this before they work: the nearest existing folder must be writable too, and jinja2 installed.

    Raises:
        InputError: one of these does not hold.
    """
    templates(owner)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{owner} {folder}: {nearest} is not writable; name another folder")
    if not folder.exists():
        if not nearest.is_dir():
            raise InputError(f"{owner} {folder}: {nearest} is a file; name another folder")
        return
    if not folder.is_dir():
        raise InputError(f"{owner} {folder}: this is a file; name a folder, which is made")
    try:
        for name in FILES:
            remove_leftovers(folder / name)
        names = {entry.name for entry in folder.iterdir()}
        ours = PAGE in names and f'"{GENERATOR}'.encode() in (folder / PAGE).read_bytes()[:1000]
    except OSError as error:
        raise InputError(f"{owner} {folder}: it cannot be read ({error.strerror}); name another folder") from error
    foreign = sorted(names - set(FILES)) if ours else sorted(names)
    if foreign:
        raise InputError(
            f"{owner} {folder}: the folder holds other files than a report ({', '.join(foreign[:3])}); "
            "name a new folder"
        )


def write(owner: str, folder: Path, files: Mapping[str, str]) -> None:
    """Write `files` into `folder`, each atomically and the page last, and remove what an older report has on top.

    Raises:
        InputError: a file cannot be written. Then, and after an interruption, no new file stays.
    """
    created, new = not folder.exists(), [name for name in files if not (folder / name).exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: name == PAGE):
            replace_file(folder / name, [files[name].encode("utf-8")])
        for name in set(FILES) - set(files):
            (folder / name).unlink(missing_ok=True)
    except BaseException as error:
        with suppress(OSError):  # the error that is being handled says more
            for name in new:
                (folder / name).unlink(missing_ok=True)
            if created:
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{owner} {folder}: the report cannot be written ({error.strerror}); name another folder"
        ) from error


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV, numbers with every digit, so that they read back exactly."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(rows)
    return text.getvalue()
