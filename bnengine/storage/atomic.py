"""Atomic writes: a path always holds a complete file, the old or the new one, whatever stops the program."""

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

_PIECE = 16 << 20  # bytes of one os.write: Python handles Ctrl-C between two of them


class NotFlushedError(OSError):
    """The new file is in place and complete, but its folder was not flushed: a power failure now may undo it."""


def resolve(path: str | os.PathLike[str]) -> str:
    """Follow links to the file that writing to `path` changes; OSError for a folder, a device or a loop of links."""
    target = os.path.realpath(os.fsdecode(path))
    if os.path.islink(target):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(errno.EINVAL, "not a regular file", target)
    return target


def replace_file(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Replace the content of the file at `path` by `chunks`, atomically.

    Writes a temporary file in the same folder, flushes it to the disk, renames it over the old one and flushes the
    folder. A link is followed and stays a link; the permissions of an existing file are kept.

    Raises:
        NotFlushedError: the new file is in place, but its folder was not flushed.
        OSError: any other failure; the old file is unchanged and the temporary one removed.
    """
    target = resolve(path)
    folder, name = os.path.split(target)
    remove_leftovers(target)
    folder_descriptor = None if sys.platform == "win32" else os.open(folder, os.O_RDONLY)
    try:
        _write_and_rename(target, os.path.join(folder, _temporary_prefix(name)), chunks)
        if folder_descriptor is not None:
            _flush_folder(folder_descriptor, folder)
    finally:
        if folder_descriptor is not None:
            os.close(folder_descriptor)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Delete the temporary files that killed processes left next to `path`; keep those that are being written.

    A writer holds a lock on its temporary file, and the system releases the lock when the writer dies.
    """
    folder, name = os.path.split(os.path.realpath(os.fsdecode(path)))
    pattern = re.compile(re.escape(_temporary_prefix(name)) + r"\d+-[0-9a-f]{16}\.tmp")
    for entry in os.listdir(folder):
        if pattern.fullmatch(entry):
            # A file that another process has just removed, or that may not be removed, does not prevent the write.
            with suppress(OSError):
                _remove_if_abandoned(os.path.join(folder, entry))


def _temporary_prefix(name: str) -> str:
    # A digest instead of the name has a fixed length, whatever the length of the name, and belongs to no other file.
    return f".bnengine-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"


def _write_and_rename(target: str, prefix: str, chunks: Iterable[bytes | memoryview]) -> None:
    mode = stat.S_IMODE(os.stat(target).st_mode) if os.path.exists(target) else None
    temporary = f"{prefix}{os.getpid()}-{secrets.token_hex(8)}.tmp"
    descriptor = -1
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        # Writable by its owner even if the file is read-only: `remove_leftovers` must open it to try its lock.
        descriptor = os.open(temporary, flags, 0o666 if mode is None else mode | 0o600)
        _lock(descriptor)
        for chunk in chunks:
            _write_all(descriptor, memoryview(chunk))
        if mode is not None:
            os.chmod(temporary, mode)
        os.fsync(descriptor)
        if sys.platform == "win32":  # an open file cannot be renamed there; elsewhere the lock is kept until it is
            os.close(descriptor)
            descriptor = -1
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):  # the file or the disk is gone already: the first error says more
            os.unlink(temporary)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[:_PIECE]) :]


def _flush_folder(descriptor: int, folder: str) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder and say so: there the rename is as durable as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise NotFlushedError(error.errno, error.strerror, folder) from error


def _lock(descriptor: int) -> bool:
    """Take the lock; False where another process holds it or the file system has no locks."""
    if sys.platform == "win32":
        return True  # an open file cannot be deleted there, and the lock serves nothing else
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_abandoned(temporary: str) -> None:
    descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        abandoned = _lock(descriptor)
    finally:
        if sys.platform == "win32":
            os.close(descriptor)
    try:
        if abandoned:
            os.unlink(temporary)
    finally:
        if sys.platform != "win32":
            os.close(descriptor)
