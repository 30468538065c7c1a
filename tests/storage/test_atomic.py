"""The file at the path is always the complete old one or the complete new one, whatever fails or kills the writer."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bnengine.errors import CheckpointError
from bnengine.storage import atomic, checkpoint
from tests.storage.cases import NEW, OLD, epoch, files


def failing(call: Callable[..., Any], error: BaseException, *, at: int = 1) -> Callable[..., Any]:
    """`call`, which raises `error` the `at`-th time."""
    calls = iter(range(1, 1000))

    def fail(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise error
        return call(*arguments, **options)

    return fail


def half_written(descriptor: int, data: Any, write: Callable[..., int] = os.write) -> int:
    """An os.write that takes a part of what it is given, as the system may."""
    return write(descriptor, data[: max(1, len(data) // 2)])


ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "Input/output error"),
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(
    ("step", "at"),
    # The first os.open and the second os.fsync are the folder's.
    [("listdir", 1), ("open", 1), ("open", 2), ("chmod", 1), ("write", 1), ("write", 2), ("fsync", 1), ("replace", 1)],
)
def test_a_failure_at_any_step_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str, at: int, error: BaseException
) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half_written)
        patch.setattr(os, step, failing(getattr(os, step), error, at=at))
        expected = CheckpointError if isinstance(error, Exception) else type(error)
        with pytest.raises(expected) as caught:
            checkpoint.write(path, NEW, {"epoch": 2})

    assert path.read_bytes() == before
    assert files(path) == [path.name]
    if expected is CheckpointError:
        assert str(caught.value).startswith(f"checkpoint.write({str(path)!r}): ")
        assert str(caught.value).endswith(" The old checkpoint is intact.")
    checkpoint.write(path, NEW, {"epoch": 2})
    assert epoch(path) == 2


def test_the_steps_come_in_the_order_that_makes_them_safe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def note(*arguments: Any, **options: Any) -> Any:
            first = arguments[0]
            kind = ""
            if isinstance(first, int):
                kind = " folder" if stat.S_ISDIR(os.fstat(first).st_mode) else " file"
            if steps[-1:] != [name + kind]:
                steps.append(name + kind)
            return call(*arguments, **options)

        return note

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    checkpoint.write(path, NEW, {"epoch": 2})

    assert steps == ["write file", "fsync file", "replace", "fsync folder"]


def test_a_system_that_writes_in_small_pieces_writes_everything(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", half_written)
    checkpoint.write(path, NEW, {"epoch": 2})
    assert epoch(path) == 2


def test_a_folder_that_cannot_be_flushed_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync, OSError(errno.EIO, "Input/output error"), at=2))
        with pytest.raises(CheckpointError, match=r"the new checkpoint is in place, .* \(Input/output error\)"):
            checkpoint.write(path, NEW, {"epoch": 2})
    assert epoch(path) == 2
    assert files(path) == [path.name]


def test_a_file_system_without_a_flush_of_folders_is_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, OSError(errno.EINVAL, "Invalid argument"), at=2))
    checkpoint.write(path, NEW, {"epoch": 2})
    assert epoch(path) == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "the disk is full. Free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is mounted read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error. Check the path and the disk"),
    ],
)
def test_the_reason_comes_with_its_cure(path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, OSError(code, os.strerror(code))))
    with pytest.raises(CheckpointError, match=f"{reason}.* The old checkpoint is intact"):
        checkpoint.write(path, NEW, {"epoch": 2})


def test_a_path_that_cannot_be_written_is_an_error_with_its_cure(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    for name, reason in {
        "none/model": "its folder does not exist. Create it first. Nothing was written",
        "": "this is a folder. Name a file in it",
        "file/model": "a part of the path is a file",
        "loop": "a loop of symbolic links",
        "pipe": "not a regular file",
        "\0": "null (byte|character)",
        "x" * 300: "name too long",
    }.items():
        with pytest.raises(CheckpointError, match=f"(?i){reason}"):
            checkpoint.write(os.path.join(tmp_path, name), NEW, {})
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / ("x" * 255), NEW, {"epoch": 2})
    assert epoch(tmp_path / ("x" * 255)) == 2


def test_a_relative_path_is_taken_from_the_current_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    checkpoint.write(path.name, NEW, {"epoch": 2})
    assert epoch(path) == 2


def test_writing_through_a_link_changes_the_file_it_names(path: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "first").symlink_to(path)
    (links / "second").symlink_to("first")
    (links / "folder").symlink_to(path.parent)
    checkpoint.write(links / "second", NEW, {"epoch": 2})

    assert epoch(path) == 2
    assert (links / "second").is_symlink()
    assert (links / "first").is_symlink()
    assert sorted(os.listdir(links)) == ["first", "folder", "second"]

    checkpoint.write(links / "folder" / path.name, OLD, {"epoch": 1})
    assert epoch(path) == 1
    (links / "dangling").symlink_to(path.parent / "fresh")
    checkpoint.write(links / "dangling", NEW, {"epoch": 2})
    assert epoch(path.parent / "fresh") == 2


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask unlike the usual one."""
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


def test_a_new_file_has_the_umask_and_an_old_one_its_permissions(path: Path, umask: int) -> None:
    checkpoint.write(path.parent / "new", NEW, {})
    assert stat.S_IMODE((path.parent / "new").stat().st_mode) == 0o666 & ~umask
    for mode in (0o600, 0o664, 0o444):
        path.chmod(mode)
        checkpoint.write(path, NEW, {"epoch": 2})
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_private_file_is_never_open_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    write = os.write

    def noted(descriptor: int, data: Any) -> int:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", noted)
    for mode, expected in ((0o600, 0o600), (0o400, 0o600), (0o444, 0o644)):
        modes.clear()
        path.chmod(mode)
        checkpoint.write(path, NEW, {"epoch": 2})
        assert set(modes) == {expected}


def test_the_temporary_file_of_a_living_writer_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    seen: list[list[str]] = []

    def other_writer(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        checkpoint.write(path, OLD, {"epoch": 1})
        seen.append(files(path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", other_writer)
    checkpoint.write(path, NEW, {"epoch": 2})

    assert [len(names) for names in seen] == [2]
    assert epoch(path) == 2
    assert files(path) == [path.name]


def test_only_left_overs_of_this_very_file_are_removed(path: Path) -> None:
    prefix = atomic._temporary_prefix(path.name)
    kept = [
        atomic._temporary_prefix("other.safetensors") + "12-0123456789abcdef.tmp",
        prefix + "12-0123456789abcdef.tmp.bak",
        prefix + "12-0123456789ABCDEF.tmp",
        prefix + "x-0123456789abcdef.tmp",
        "model.safetensors.tmp",
    ]
    gone = [prefix + "12-0123456789abcdef.tmp", prefix + "4194304-fedcba9876543210.tmp"]
    for name in kept + gone:
        (path.parent / name).touch()
    link = prefix + "13-0123456789abcdef.tmp"
    (path.parent / link).symlink_to(path)

    checkpoint.write(path, NEW, {"epoch": 2})
    assert files(path) == sorted([*kept, link, path.name])
    assert epoch(path) == 2
