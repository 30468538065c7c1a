"""The folder of a run: its settings, metrics, model and curves; one process at a time trains in it."""

import os
import platform
import sys
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Self

import numpy as np

from .. import fused
from .._version import __version__
from ..errors import CheckpointError, InputError
from ..renamed import replace_old_words
from .atomic import remove_leftovers, replace_file
from .codec import dumps, parse_object
from .saving import MODEL

if sys.platform != "win32":
    import fcntl

REFERENCES = "none, the references"
CONFIG, METRICS, CURVES = "config.toml", "metrics.jsonl", "curves.png"
PARENT = Path("runs")
_COMMENT = """\
# How this network was trained, every setting with its value.
# `bnengine train --config FILE` trains it again, to the same bits on the same machine.
"""


class RunFolder:
    """The folder of one run, locked by the process that trains in it until `close` or the end of the process."""

    def __init__(self, folder: Path, descriptor: int, *, created: bool = False) -> None:
        self.folder, self._descriptor, self._created = folder, descriptor, created
        self.config, self.metrics = folder / CONFIG, folder / METRICS
        self.model, self.curves = folder / MODEL, folder / CURVES

    @classmethod
    def create(cls, out: str | None, name: str) -> Self:
        """Create and lock a folder: `out`, which must be new or empty, or the next free one of runs/NAME-1, -2, ...

        Raises:
            InputError: the folder cannot be created, holds something, or another process trains in it.
        """
        if out is not None:
            return cls._claimed(Path(out), fresh=False)
        for number in range(1, sys.maxsize):
            folder = PARENT / f"{name}-{number}"
            if not os.path.lexists(folder):
                with suppress(FileExistsError):  # another process has just taken this number
                    return cls._claimed(folder, fresh=True)
        raise AssertionError("unreachable")

    @classmethod
    def _claimed(cls, folder: Path, *, fresh: bool) -> Self:
        created = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=not fresh)
        except OSError as error:
            if fresh and isinstance(error, FileExistsError):
                raise
            reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            raise InputError(
                f"train: the folder {folder} cannot be created ({reason}). Name another with --out."
            ) from error
        run = cls(folder, _locked(folder), created=created)
        try:
            check_free(folder)
        except InputError:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Lock the folder of an earlier run, to continue it; InputError if it is none."""
        check_run(folder, "train: --resume")
        return cls(folder, _locked(folder))

    def write_config(self, tables: Mapping[str, Any], backend: str) -> None:
        """Write config.toml atomically, with the versions and instructions that compute on this machine.

        Raises:
            CheckpointError: the file cannot be written.
        """
        import tomli_w

        made_by = {"bnengine": __version__, "python": platform.python_version(), "numpy": np.__version__}
        if tables.get("run", {}).get("kernels") == "reference":
            made_by["kernels"] = REFERENCES
        elif backend == "numpy":
            made_by["kernels"] = fused.instruction_set() or REFERENCES
        content = _COMMENT + tomli_w.dumps({**tables, "made_by": made_by})
        try:
            replace_file(self.config, [content.encode()])
        except OSError as error:
            raise CheckpointError(
                f"train: {self.config} cannot be written ({error.strerror}). Name another --out."
            ) from error

    def discard(self) -> None:
        """Remove a run that ended before its first checkpoint."""
        if self.model.exists():
            return
        with suppress(OSError):
            for file in (self.config, self.metrics):
                file.unlink(missing_ok=True)
            if self._created:
                self.folder.rmdir()

    def close(self) -> None:
        """Release the folder lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # -- metrics ------------------------------------------------------------------------------------------------------

    def append(self, record: Mapping[str, Any]) -> None:
        """Append an epoch's line to metrics.jsonl and flush it to the disk; what is not finite becomes null."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"train: {self.metrics} cannot be written ({error.strerror}). Check the disk."
            ) from error

    def rewind(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Cut metrics.jsonl back to the epochs of `history`; later and incomplete lines are dropped."""
        written = {record.get("epoch"): record for record in read_metrics(self.folder)}
        lines = [_line(written.get(record["epoch"], record)) for record in history]
        try:
            replace_file(self.metrics, [line.encode() for line in lines])
        except OSError as error:
            raise CheckpointError(
                f"train: {self.metrics} cannot be written ({error.strerror}). Check the disk."
            ) from error


def check_free(folder: Path) -> None:
    """InputError if the folder holds a run, or anything else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"train: the folder {folder} cannot be created (it is a file). Name another with --out.")
    remove_leftovers(folder / CONFIG)
    names = sorted(entry.name for entry in folder.iterdir())
    if CONFIG in names or MODEL in names:
        raise InputError(
            f"train: {folder} holds a run already. Continue it with bnengine train --resume {quote(str(folder))}, or "
            "name another folder with --out."
        )
    if names:
        raise InputError(
            f"train: {folder} is not empty (it holds {', '.join(names[:3])}). Name another folder with --out."
        )


def check_run(folder: Path, owner: str) -> None:
    """InputError unless the folder is that of a run."""
    if not folder.is_dir():
        raise InputError(f"{owner} {folder}: there is no such folder (looked in {Path.cwd()}). Check the path.")
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{owner} {folder}: this is not the folder of a run: it has no {CONFIG}. Name the folder of a run."
        )


def read_config(file: Path, owner: str) -> dict[str, Any]:
    """Read the tables of a config.toml; words that were renamed are read under their new names.

    Raises:
        InputError: the file cannot be read, or is not TOML; the message names the line.
    """
    try:
        with file.open("rb") as stream:
            return replace_old_words(tomllib.load(stream))
    except OSError as error:
        raise InputError(f"{owner} {file}: it cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{owner} {file}: this is not TOML ({error}). Correct the file.") from error


def kernels_of(folder: Path) -> str | None:
    """Return the processor instructions that the kernels of a run used at its start; None if unknown."""
    try:
        tables = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return str(tables["made_by"]["kernels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl up to the first malformed line, which a killed process may have left."""
    records: list[dict[str, Any]] = []
    try:
        text = (folder / METRICS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return records
    for line in text.splitlines():
        try:
            records.append(parse_object(line))
        except ValueError:
            break
    return records


def _line(record: Mapping[str, Any]) -> str:
    return dumps(record, ascii_only=False) + "\n"


def _locked(folder: Path) -> int:
    """Return a descriptor that locks the folder; InputError if another process holds the lock."""
    if sys.platform == "win32":
        return -1
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"train: the folder {folder} cannot be opened ({error.strerror}). Name another.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"train: another process trains in {folder} now. Wait for it, or name another folder."
        ) from None
    except OSError:
        pass  # a file system without locks: only the check of the folder's content remains
    return descriptor
