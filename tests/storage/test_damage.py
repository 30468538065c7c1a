"""No damaged, foreign or unreadable file is taken for a checkpoint: each is an error that says what is wrong."""

import json
import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from bnengine.errors import CheckpointError
from bnengine.storage import checkpoint
from tests.support import ROOT, missing

TENSORS = {
    "layer.weight": np.array([[1.5, -2.0], [0.25, 8.0]], "f4"),
    "count": np.array(5, "i8"),
    "mask": np.array([True, False, True]),
    "none": np.zeros((0, 3)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small checkpoint."""
    path = tmp_path / "model.safetensors"
    checkpoint.write(path, TENSORS, {"epoch": 3, "name": "a"})
    return path


def refuse(path: Path, data: bytes, match: str = r"^checkpoint\.read\(") -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=match):
        checkpoint.read(path)


@pytest.mark.parametrize("flips", [(0x20,), (0x01, 0x80, 0xFF)])  # 0x20 changes the case of a letter
def test_any_flipped_byte_is_noticed(path: Path, flips: tuple[int, ...]) -> None:
    data = path.read_bytes()
    for place, flip in zip(range(len(data)), cycle(flips), strict=False):
        refuse(path, data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
    path.write_bytes(data)
    assert checkpoint.read(path).metadata == {"epoch": 3, "name": "a"}


def test_changed_white_space_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    assert data[end - 1 : end] == b" "
    for space in b"\t\n\r":
        refuse(path, data[: end - 1] + bytes([space]) + data[end:], "header is damaged")


def test_a_file_cut_at_any_length_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data)):
        refuse(path, data[:length])
    refuse(path, b"", "is empty")
    refuse(path, data[:200], r"is truncated: 200 bytes, and its header alone has [\d,]+. Restore an earlier copy")
    refuse(path, data[:-1], f"is truncated: {len(data) - 1:,} bytes, and its header names {len(data):,}")


def test_appended_bytes_are_refused(path: Path) -> None:
    refuse(path, path.read_bytes() + b"\0", "the file is damaged")


def test_the_error_names_command_path_and_damaged_tensor(path: Path) -> None:
    data = path.read_bytes()
    start = data.index(TENSORS["layer.weight"].tobytes())
    changed = data[:start] + bytes([data[start] ^ 4]) + data[start + 1 :]
    path.write_bytes(changed)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert str(caught.value) == (
        f"checkpoint.read({str(path)!r}): tensor 'layer.weight' is damaged (its SHA-256 differs). "
        "Restore an earlier copy."
    )


def test_a_foreign_safetensors_file_is_called_so(path: Path) -> None:
    for metadata in (None, {"format": "pt"}, {"bnengine": "[1]"}, {"bnengine": "not JSON"}, {"bnengine": "[" * 9999}):
        data = safetensors.numpy.save({"w": np.ones(2)}, metadata=metadata)
        refuse(path, data, "not of bnengine|header is damaged")


def test_a_file_that_is_no_safetensors_file_is_called_so(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), w=np.ones(3))
    for data in (path.with_suffix(".npz").read_bytes(), b"\x80\x04K\x03." * 9, b"text", b"epoch,loss\n1,0.5\n" * 9):
        refuse(path, data, "no safetensors file")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "place of tensor 'w' is wrong"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "place of tensor 'w' is wrong"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, r"has the shape \[-1\]"),
        ({"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}, "has the shape '1'"),
        ({"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}, "dtype 'BF16', which bnengine never writes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, True]}, "has no place"),
        ([], "has no place"),
        ({"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4 * 10**30]}, "is truncated"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(path: Path, entry: object, reason: str) -> None:
    digest = "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"  # of four zero bytes
    document = json.dumps({"format": "bnengine", "version": 0, "sha256": {"w": digest}})

    def file(place: object) -> bytes:
        header = json.dumps({"__metadata__": {"bnengine": document}, "w": place}).encode()
        return len(header).to_bytes(8, "little") + header + bytes(4)

    path.write_bytes(file({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}))
    assert checkpoint.read(path).tensors["w"] == 0  # the file is refused for the entry's sake only
    refuse(path, file(entry), reason)


@pytest.mark.parametrize("version", [None, "1", 1.0, True, -1])
def test_a_version_that_is_none_is_refused(path: Path, version: object) -> None:
    document = {"format": "bnengine", "version": version, "sha256": {}}
    refuse(path, safetensors.numpy.save({}, metadata={"bnengine": json.dumps(document)}), "version")


def test_a_tensor_without_a_digest_is_refused(path: Path) -> None:
    document = {"format": "bnengine", "version": 0, "sha256": {}}
    data = safetensors.numpy.save({"w": np.ones(1)}, metadata={"bnengine": json.dumps(document)})
    refuse(path, data, "do not match")


def test_a_missing_file_a_folder_and_a_pipe_are_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, reason in {
        "none": "there is no such file. Check the path",
        "": "this is a folder. Name a file in it",
        "pipe": "not a regular file",
        "file/x": "a part of the path is a file",
        "\0": "null (byte|character)",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            checkpoint.read(os.path.join(tmp_path, name))


def test_a_file_that_may_not_be_read_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    with pytest.raises(CheckpointError, match=r"permission denied\. Change the permissions"):
        checkpoint.read(path)


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
from bnengine.storage import checkpoint
from bnengine.errors import CheckpointError

size, path = 64 << 20, sys.argv[1]
checkpoint.write(path, {"w": np.zeros(size, "u1")}, {})
strided = np.zeros(2 * size, "u1")[::2]
before = open(path, "rb").read(1000)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size // 2,) * 2)
for call in (lambda: checkpoint.read(path), lambda: checkpoint.write(path, {"w": strided}, {})):
    try:
        call()
    except CheckpointError as error:
        print(error)
assert open(path, "rb").read(1000) == before
"""


def test_too_little_memory_is_an_error(path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        missing("linux", "the limit on memory is set by what /proc says")
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read, written = done.stdout.splitlines()
    assert "not enough memory: the file has 67,109,248 bytes and reading it needs twice that" in read
    assert "not enough memory to make a strided array contiguous" in written
    assert "The old checkpoint is intact" in written
