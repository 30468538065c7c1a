import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnengine._typing import Array
from bnengine.data import Dataset, load
from bnengine.data.idx import read_idx
from bnengine.errors import DataError
from tests.data.idx_files import IDX_CODES, idx_bytes, write_idx

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@settings(deadline=None)  # A busy machine is no failure.
@given(
    array=hnp.arrays(st.sampled_from(sorted(IDX_CODES)), hnp.array_shapes(max_dims=4, max_side=5)),
    compressed=st.booleans(),
)
def test_every_array_comes_back_with_its_values_and_type(
    tmp_path_factory: pytest.TempPathFactory, array: Array, compressed: bool
) -> None:
    path = write_idx(tmp_path_factory.mktemp("idx") / ("a.gz" if compressed else "a"), array)
    found = read_idx(path)
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_of_one_part_is_read(tmp_path: Path, images: Array, digits_of_images: Array, ending: str) -> None:
    write_idx(tmp_path / (TRAIN[0] + ending), images)
    write_idx(tmp_path / (TRAIN[1] + ending), digits_of_images)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.x, images)
    np.testing.assert_array_equal(data.y, digits_of_images)
    assert data.y.dtype == np.int64
    assert data.validation is None


def test_the_test_part_becomes_the_validation_rows(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    for names, rows in ((TRAIN, slice(0, 5)), (TEST, slice(5, 7))):
        write_idx(tmp_path / names[0], images[rows])
        write_idx(tmp_path / (names[1] + ".gz"), digits_of_images[rows])
    data = load(tmp_path)
    np.testing.assert_array_equal(data.x, images)
    np.testing.assert_array_equal(data.y, digits_of_images)
    assert data.validation.tolist() == [5, 6]


def test_an_images_file_may_lack_labels_for_prediction(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    for names in (TRAIN, TEST):
        write_idx(tmp_path / names[0], images)
    write_idx(tmp_path / TRAIN[1], digits_of_images)
    assert load(tmp_path / TRAIN[0]).y.tolist() == digits_of_images.tolist()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte has no labels file t10k-labels-idx1-ubyte"):
        load(tmp_path / TEST[0])
    assert load(tmp_path / TEST[0], need_targets=False).y is None
    with pytest.raises(DataError, match=r"this is a file of labels\. Name the images file"):
        load(tmp_path / TRAIN[1])


def test_gzip_is_known_by_content(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    (tmp_path / TRAIN[0]).write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / (TRAIN[0] + ".gz")).write_bytes(b"not read")
    write_idx(tmp_path / TRAIN[1], digits_of_images)
    np.testing.assert_array_equal(load(tmp_path).x, images)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("which", [0, 1])
def test_every_truncation_is_named(
    tmp_path: Path, images: Array, digits_of_images: Array, ending: str, which: int
) -> None:
    paths = [
        write_idx(tmp_path / (name + ending), array)
        for name, array in zip(TRAIN, (images, digits_of_images), strict=True)
    ]
    content = paths[which].read_bytes()
    for size in range(len(content)):
        paths[which].write_bytes(content[:size])
        with pytest.raises(DataError, match="truncated") as caught:
            load(tmp_path)
        assert str(paths[which]) in str(caught.value)


def test_a_truncation_names_byte_and_row(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    path = write_idx(tmp_path / TRAIN[0], images)
    write_idx(tmp_path / TRAIN[1], digits_of_images)
    path.write_bytes(path.read_bytes()[: 16 + 4 * 12 + 5])
    with pytest.raises(
        DataError, match=r"ubyte: truncated at byte 69, in row 4: the header promises shape \(7, 4, 3\)"
    ):
        load(tmp_path)
    path.write_bytes(idx_bytes(images)[:9])
    with pytest.raises(DataError, match="truncated at byte 9: the file ends in the 3 lengths of the axes"):
        load(tmp_path)


def test_bytes_beyond_the_header_s_promise_are_named(tmp_path: Path, images: Array) -> None:
    path = tmp_path / TRAIN[0]
    path.write_bytes(idx_bytes(images) + b"x")
    with pytest.raises(DataError, match="byte 100: there are more bytes than the header"):
        load(tmp_path, need_targets=False)


def test_a_header_s_wild_promise_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / TRAIN[0]
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"abc")
    with pytest.raises(DataError, match="truncated at byte 19, in row 0"):
        load(tmp_path, need_targets=False)


@pytest.mark.parametrize("magic", [b"\1\0\x08\x03", b"\0\0\x07\x03", b"\0\0\x08\x00", b"\x89PNG"])
def test_a_wrong_magic_number_is_named(tmp_path: Path, images: Array, magic: bytes) -> None:
    (tmp_path / TRAIN[0]).write_bytes(magic + idx_bytes(images)[4:])
    with pytest.raises(DataError, match=f"byte 0: an IDX file must start with 0x0000, .*got 0x{magic.hex()}"):
        load(tmp_path, need_targets=False)


def loaded_or_refused(path: Path) -> Dataset | str:
    try:
        return load(path, need_targets=False)
    except DataError as error:
        return str(error)


def test_a_flipped_byte_in_a_gz_is_never_read_as_other_data(tmp_path: Path, images: Array) -> None:
    path = write_idx(tmp_path / (TRAIN[0] + ".gz"), images)
    content = path.read_bytes()
    refused = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        found = loaded_or_refused(tmp_path)
        if isinstance(found, str):
            assert str(path) in found
            refused += 1
        else:  # A bit of the time stamp, of the system's name, of the padding after the last block.
            np.testing.assert_array_equal(found.x, images)
    assert refused >= len(content) - 10


def test_counts_and_axes_that_do_not_match_are_named(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    write_idx(tmp_path / TRAIN[0], images)
    labels = write_idx(tmp_path / TRAIN[1], digits_of_images[:6])
    with pytest.raises(DataError, match=f"{labels}: 6 labels for the 7 images of train-images-idx3-ubyte"):
        load(tmp_path)
    write_idx(tmp_path / TRAIN[1], images)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: byte 3: labels must have one axis, .*got 3"):
        load(tmp_path)
    write_idx(tmp_path / TRAIN[0], digits_of_images)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: byte 3: images must have .*got 1"):
        load(tmp_path)


def test_parts_of_different_kinds_are_named(tmp_path: Path, images: Array, digits_of_images: Array) -> None:
    for names, x in ((TRAIN, images), (TEST, images[:, :2])):
        write_idx(tmp_path / names[0], x)
        write_idx(tmp_path / names[1], digits_of_images)
    with pytest.raises(DataError, match=r"training part's samples are \(4, 3\) uint8, the validation part's \(2, 3\)"):
        load(tmp_path)


def test_folders_without_or_with_too_many_files_are_named(tmp_path: Path, images: Array) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: no IDX files here"):
        load(tmp_path)
    write_idx(tmp_path / TRAIN[1], images)
    with pytest.raises(DataError, match="labels-idx1-ubyte has no images file train-images-idx3-ubyte next to it"):
        load(tmp_path)
    write_idx(tmp_path / ("emnist-" + TRAIN[0]), images)
    with pytest.raises(DataError, match="files of several data sets"):
        load(tmp_path)


def test_an_empty_file_and_no_images_at_all_are_named(tmp_path: Path, images: Array) -> None:
    path = write_idx(tmp_path / TRAIN[0], images[:0])
    with pytest.raises(DataError, match=rf"{path}: x must have at least one .*got shape \(0, 4, 3\)"):
        load(tmp_path, need_targets=False)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="truncated at byte 0: the file ends in the magic number"):
        load(tmp_path, need_targets=False)


def test_the_mnist_sample_is_read() -> None:
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "mnist-10k"
    if not folder.exists():
        pytest.skip("the sample of MNIST is not next to the checkout")
    data = load(folder)
    assert data.x.shape == (10000, 28, 28)
    # The class counts of MNIST's test part.
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
