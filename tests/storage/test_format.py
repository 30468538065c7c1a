"""What goes into a checkpoint comes out, equal state gives equal bytes, and what it cannot hold is refused by name."""

import enum
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnengine.errors import CheckpointError
from bnengine.storage import checkpoint

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
KEPT = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

dtypes = st.tuples(st.sampled_from("<>"), st.sampled_from(DTYPES)).map(lambda pair: np.dtype("".join(pair)))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Of any dtype, byte order and shape, in C or Fortran order, reversed, strided or stretched from one value."""
    array = draw(dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))))
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided", "stretched"]))
    if layout == "F":
        return np.asfortranarray(array) if array.ndim else array
    if layout == "reversed":
        return array.T[::-1] if array.ndim else array
    if layout == "strided":
        return array[..., ::2] if array.ndim else array
    return np.broadcast_to(array, (2, *array.shape)) if layout == "stretched" else array


def assert_same(read: np.ndarray, written: np.ndarray) -> None:
    """The same values to the bit, NaN payloads too, in the machine's byte order, in private memory."""
    assert (read.shape, read.dtype) == (written.shape, written.dtype.newbyteorder("="))
    assert read.tobytes() == written.astype(written.dtype.newbyteorder("=")).tobytes()
    assert read.flags.writeable
    assert read.flags.aligned
    assert read.flags.c_contiguous


@KEPT
@given(tensors=st.dictionaries(names, arrays(), max_size=4), metadata=st.dictionaries(st.text(), values, max_size=4))
def test_the_safetensors_package_reads_what_was_written(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any]
) -> None:
    path = tmp_path / "model.safetensors"
    before = {name: array.copy() for name, array in tensors.items()}

    checkpoint.write(path, tensors, metadata)
    read = checkpoint.read(path)

    assert read.metadata == metadata
    assert read.tensors.keys() == tensors.keys()
    foreign = safetensors.numpy.load_file(path)
    assert foreign.keys() == tensors.keys()
    for name, array in tensors.items():
        assert_same(read.tensors[name], array)
        assert foreign[name].tobytes() == read.tensors[name].tobytes()
        assert foreign[name].shape == array.shape
        assert array.tobytes() == before[name].tobytes()


@KEPT
@given(
    tensors=st.dictionaries(names, arrays(), max_size=5),
    metadata=st.dictionaries(st.text(), values, max_size=5),
    random=st.randoms(use_true_random=False),
)
def test_equal_state_gives_equal_bytes(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, Any], random: Any
) -> None:
    def shuffled(mapping: dict[str, Any]) -> dict[str, Any]:
        return dict(random.sample(list(mapping.items()), len(mapping)))

    checkpoint.write(tmp_path / "a", tensors, metadata)
    other = {name: array.astype(array.dtype.newbyteorder("S")) for name, array in shuffled(tensors).items()}
    checkpoint.write(tmp_path / "b", other, shuffled(metadata))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_read_back_share_no_memory(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "a", {"w": np.ones(3), "b": np.ones(3)}, {})
    tensors, _ = checkpoint.read(tmp_path / "a")
    tensors["w"][:] = 7

    assert not np.shares_memory(tensors["w"], tensors["b"])
    np.testing.assert_array_equal(checkpoint.read(tmp_path / "a").tensors["w"], np.ones(3))


def test_the_metadata_are_one_key_of_sorted_json(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint.write(path, {"w": np.array([1.5, -2.0], "f4")}, {"epoch": 3})

    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["bnengine"]
    document = json.loads(metadata["bnengine"])
    assert metadata["bnengine"] == json.dumps(document, sort_keys=True, separators=(",", ":"))
    # sha256sum of the bytes 00 00 c0 3f 00 00 00 c0
    assert document["sha256"] == {"w": "252b3318179cc24998f3670913d52d39085cf65b0dfa98fa523ffeab4b6683fe"}
    assert (document["format"], document["version"], document["metadata"]) == ("bnengine", 2, {"epoch": 3})


def test_the_data_begin_at_a_multiple_of_64_bytes(tmp_path: Path) -> None:
    for length in range(70):
        checkpoint.write(tmp_path / "a", {"w": np.ones(2)}, {"x": "a" * length})
        assert (8 + int.from_bytes((tmp_path / "a").read_bytes()[:8], "little")) % 64 == 0


def test_every_array_begins_at_a_multiple_of_its_item_size(tmp_path: Path) -> None:
    tensors = {"a": np.ones(3, bool), "b": np.ones(3), "c": np.ones(1, "f2"), "d": np.ones(3, "f4")}
    checkpoint.write(tmp_path / "a", tensors, {})
    data = (tmp_path / "a").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])

    for name, array in tensors.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0


def test_subclasses_become_plain_and_tuples_become_lists(tmp_path: Path) -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    checkpoint.write(tmp_path / "a", {}, {"l": Level.HIGH, "f": np.float64(0.1), "s": np.str_("x"), "t": (1, (2,))})
    metadata = checkpoint.read(tmp_path / "a").metadata

    assert metadata == {"l": 3, "f": 0.1, "s": "x", "t": [1, [2]]}
    assert [type(value) for value in metadata.values()] == [float, int, str, list]


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.array([1j]),
        np.array([1j], "c8"),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([1], "M8[s]"),
        np.zeros(2, [("a", "f4")]),
        np.ones(2, np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_a_dtype_that_cannot_be_stored_names_the_tensor(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(
        CheckpointError, match=r"tensor 'weight' must have a dtype among bool, int8.*, got .* Convert it"
    ):
        checkpoint.write(tmp_path / "a", {"weight": array}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [[1.0], 1.0, np.float64(1), np.ma.masked_array([1.0, 2.0], [True, False]), None])
def test_what_is_no_plain_array_is_refused_by_the_tensors_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"tensor 'weight' must be an array, got .*\. Pass np\.asarray of it"):
        checkpoint.write(tmp_path / "a", {"weight": value}, {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [("__metadata__", "a tensor's name must be"), (3, "a tensor's name must be"), ("\ud800", "surr")],
)
def test_a_name_that_the_format_cannot_hold_is_refused(tmp_path: Path, name: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.write(tmp_path / "a", {name: np.ones(1)}, {})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), r"metadata\['run'\]\[1\] is nan"),
        (float("inf"), r"metadata\['run'\]\[1\] is inf"),
        (np.float64("-inf"), r"metadata\['run'\]\[1\] is .*inf"),
        (np.int64(3), r"metadata\['run'\]\[1\] is .*int64"),
        (b"x", r"metadata\['run'\]\[1\] is b'x' of type bytes"),
        ({1: 2}, r"metadata\['run'\]\[1\] has the key 1"),
        (np.ones(2), r"metadata\['run'\]\[1\] is .* store it as a tensor"),
        (10**5000, "metadata cannot be stored as JSON"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_refused_by_its_place(tmp_path: Path, value: Any, place: str) -> None:
    with pytest.raises(CheckpointError, match=place):
        checkpoint.write(tmp_path / "a", {}, {"run": [0, value]})
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="contains itself"):
        checkpoint.write(tmp_path / "a", {}, {"loop": loop})


def test_a_header_that_the_format_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_LONGEST_HEADER", 1000)
    with pytest.raises(CheckpointError, match=r"and a safetensors header holds 1,000\. Store long lists as tensors"):
        checkpoint.write(tmp_path / "a", {}, {"long": "x" * 1000})


def old_file(path: Path, tensors: dict[str, np.ndarray], **document: Any) -> None:
    """A file of format version 0, made by the safetensors package and hashlib alone."""
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in tensors.items()}
    text = json.dumps({"format": "bnengine", "version": 0, "sha256": digests, **document})
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"bnengine": text}))


def test_a_file_of_version_0_is_migrated(tmp_path: Path) -> None:
    tensors = {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(7), "mask": np.array([True, False])}
    old_file(tmp_path / "old", tensors, epoch=3, config={"rate": 0.1})
    read = checkpoint.read(tmp_path / "old")

    assert read.metadata == {"epoch": 3, "config": {"rate": 0.1}}
    assert read.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert_same(read.tensors[name], array)

    checkpoint.write(tmp_path / "new", *read)
    checkpoint.write(tmp_path / "direct", tensors, {"epoch": 3, "config": {"rate": 0.1}})
    assert (tmp_path / "new").read_bytes() == (tmp_path / "direct").read_bytes()


def test_a_damaged_tensor_in_a_file_of_version_0_is_named(tmp_path: Path) -> None:
    old_file(tmp_path / "old", {"w": np.ones(2), "b": np.ones(1)})
    data = bytearray((tmp_path / "old").read_bytes())
    data[-1] ^= 1
    (tmp_path / "old").write_bytes(data)
    with pytest.raises(CheckpointError, match="tensor 'w' is damaged"):
        checkpoint.read(tmp_path / "old")


def test_migrations_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_version_3(old: checkpoint.Contents) -> checkpoint.Contents:
        tensors = {name.upper(): array for name, array in old.tensors.items()}
        return checkpoint.Contents(tensors, {**old.metadata, "version": 3})

    old_file(tmp_path / "old", {"w": np.ones(2)}, epoch=3)
    checkpoint.write(tmp_path / "one", {"w": np.ones(2)}, {"epoch": 3})
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 3)
    monkeypatch.setitem(checkpoint.MIGRATIONS, 2, to_version_3)
    for name in ("old", "one"):
        read = checkpoint.read(tmp_path / name)
        assert (list(read.tensors), read.metadata) == (["W"], {"epoch": 3})

    monkeypatch.delitem(checkpoint.MIGRATIONS, 2)
    with pytest.raises(CheckpointError, match="version 2, which this bnengine cannot read any more"):
        checkpoint.read(tmp_path / "one")


def test_a_newer_file_is_refused_with_both_versions_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 12)
    checkpoint.write(tmp_path / "new", {"w": np.ones(2)}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"version 12, and this bnengine reads up to version 2\. Update bnengine"):
        checkpoint.read(tmp_path / "new")
