"""The folder of a report: a page and tables beside it; never anybody else's folder."""

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
    """InputError unless `folder` is new, empty, or holds a report and nothing else, which the new one replaces.

    Commands call this before they work: the nearest existing folder must be writable, and jinja2 installed.
    """
    templates(owner)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{owner} {folder}: {there} is not writable; name another folder")
    if not folder.exists():
        if not there.is_dir():
            raise InputError(f"{owner} {folder}: {there} is a file; name another folder")
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
    others = sorted(names - set(FILES)) if ours else sorted(names)
    if others:
        raise InputError(
            f"{owner} {folder}: the folder is not empty and holds no report alone (there is {', '.join(others[:3])}); "
            "name a new folder"
        )


def write(owner: str, folder: Path, files: Mapping[str, str]) -> None:
    """Make `files` the report in `folder`: each in one step, the page last, and of an older report what is no more.

    Where that cannot be done or is interrupted, no new file stays. Raises InputError.
    """
    made, new = not folder.exists(), [name for name in files if not (folder / name).exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: name == PAGE):
            replace_file(folder / name, [files[name].encode("utf-8")])
        for name in set(FILES) - set(files):
            (folder / name).unlink(missing_ok=True)
    except BaseException as error:
        with suppress(OSError):  # the error under way says more
            for name in new:
                (folder / name).unlink(missing_ok=True)
            if made:
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{owner} {folder}: the report cannot be written ({error.strerror}); name another folder"
        ) from error


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV: numbers with every digit, so that they read back as they were."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(rows)
    return text.getvalue()
