"""The folder of a run: what it was set up by, its metrics, its model, its curves; one process at a time."""

import json
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
from .atomic import remove_leftovers, replace_file
from .codec import dumps
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
    """A folder that holds one run, locked by the process that trains in it until `close`, or until that one ends."""

    def __init__(self, folder: Path, descriptor: int, *, made: bool = False) -> None:
        self.folder, self._descriptor, self._made = folder, descriptor, made
        self.config, self.metrics = folder / CONFIG, folder / METRICS
        self.model, self.curves = folder / MODEL, folder / CURVES

    @classmethod
    def create(cls, out: str | None, name: str) -> Self:
        """The new or empty folder `out`, or the next free runs/NAME-1, -2 ...; InputError if it cannot be used."""
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
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=not fresh)
        except OSError as error:
            if fresh and isinstance(error, FileExistsError):
                raise
            reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            raise InputError(
                f"train: the folder {folder} cannot be made ({reason}); name another with --out"
            ) from error
        run = cls(folder, _locked(folder), made=made)
        try:
            check_free(folder)
        except InputError:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A run that is there already, to go on with it; InputError if there is none."""
        check_run(folder, "train: --resume")
        return cls(folder, _locked(folder))

    def write_config(self, tables: Mapping[str, Any], backend: str) -> None:
        """Write config.toml in one step, with what this machine computes by; CheckpointError if that cannot be done."""
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
                f"train: {self.config} cannot be written ({error.strerror}); name another --out"
            ) from error

    def discard(self) -> None:
        """Remove a run that came to nothing before its first checkpoint."""
        if self.model.exists():
            return
        with suppress(OSError):
            for file in (self.config, self.metrics):
                file.unlink(missing_ok=True)
            if self._made:
                self.folder.rmdir()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # -- metrics ------------------------------------------------------------------------------------------------------

    def append(self, record: Mapping[str, Any]) -> None:
        """One epoch's line of metrics.jsonl, on the disk when this returns; what is not finite becomes null."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(f"train: {self.metrics} cannot be written ({error.strerror})") from error

    def rewind(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Make metrics.jsonl what it was after the epochs of `history`: lines beyond them, or cut off, are dropped."""
        written = {record.get("epoch"): record for record in read_metrics(self.folder)}
        lines = [_line(written.get(record["epoch"], record)) for record in history]
        try:
            replace_file(self.metrics, [line.encode() for line in lines])
        except OSError as error:
            raise CheckpointError(f"train: {self.metrics} cannot be written ({error.strerror})") from error


def check_free(folder: Path) -> None:
    """InputError if the folder holds a run, or anything else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"train: the folder {folder} cannot be made (it is a file); name another with --out")
    remove_leftovers(folder / CONFIG)
    names = sorted(entry.name for entry in folder.iterdir())
    if CONFIG in names or MODEL in names:
        raise InputError(
            f"train: {folder} holds a run already; go on with it by bnengine train --resume {quote(str(folder))}, or "
            "name another folder with --out"
        )
    if names:
        raise InputError(
            f"train: {folder} is not empty (it holds {', '.join(names[:3])}); name another folder with --out"
        )


def check_run(folder: Path, owner: str) -> None:
    """InputError unless the folder is that of a run."""
    if not folder.is_dir():
        raise InputError(f"{owner} {folder}: there is no such folder (looked in {Path.cwd()})")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{owner} {folder}: this is no folder of a run, it has no {CONFIG}")


def read_config(file: Path, owner: str) -> dict[str, Any]:
    """The tables of a config.toml; InputError with the line where it is not TOML."""
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise InputError(f"{owner} {file}: it cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{owner} {file}: this is not TOML ({error})") from error


def kernels_of(folder: Path) -> str | None:
    """Which instructions the kernels used where a run began; None if config.toml does not say."""
    try:
        tables = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return str(tables["made_by"]["kernels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, up to the first line that is none: a killed process may have left half of one."""
    records: list[dict[str, Any]] = []
    try:
        text = (folder / METRICS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return records
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> str:
    return dumps(record, ascii_only=False) + "\n"


def _locked(folder: Path) -> int:
    """A descriptor that locks the folder; InputError if another process has it."""
    if sys.platform == "win32":
        return -1
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"train: the folder {folder} cannot be opened ({error.strerror}); name another") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"train: another process trains in {folder} at this moment; wait for it, or name another folder"
        ) from None
    except OSError:
        pass  # a file system without locks: the check of what the folder holds has to do
    return descriptor
