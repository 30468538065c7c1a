import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnengine._typing import Array
from bnengine.data import Dataset, load
from bnengine.errors import DataError

DTYPES = ["uint8", ">i4", "bool", "float16", "<f8", ">f4"]


class Opened:
    """Unpickling this would be seen."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (Path("unpickled"),))


@settings(deadline=None)  # A busy machine is no failure.
@given(data=st.data(), mapped=st.booleans(), fortran=st.booleans())
def test_every_pair_of_arrays_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mapped: bool, fortran: bool
) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False}
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    x = data.draw(hnp.arrays(dtype, shape, elements=elements if dtype.kind == "f" else None))
    x = np.asfortranarray(x) if fortran else x
    y = data.draw(hnp.arrays(st.sampled_from(["int64", "uint8", "<U5"]), shape[0]))
    folder = tmp_path_factory.mktemp("npy")
    if mapped:
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        found = load(folder / "x.npy")
        assert isinstance(found.x, np.memmap)
    else:
        np.savez_compressed(folder / "d.npz", x=x, y=y)
        found = load(folder / "d.npz")
    assert found.x.dtype == x.dtype
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)


def test_the_test_rows_of_an_archive_are_for_validation(tmp_path: Path) -> None:
    x = np.arange(20.0).reshape(10, 2)
    y = np.arange(10) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:7], y_train=y[:7], x_test=x[7:], y_test=y[7:])
    data = load(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.x, x)
    assert data.validation.tolist() == [7, 8, 9]


def test_targets_may_be_missing_for_prediction(tmp_path: Path) -> None:
    x = np.ones((3, 2))
    np.savez(tmp_path / "d.npz", x=x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "features.npy", x)
    for name, message in [
        ("d.npz", "the archive holds x. It needs an array y with the targets"),
        ("x.npy", r"there is no y\.npy with the targets next to it"),
        ("features.npy", r"call the file x\.npy \(or \.\.\._x\.npy\)"),
    ]:
        assert load(tmp_path / name, need_targets=False).y is None
        with pytest.raises(DataError, match=f"{name}: {message}"):
            load(tmp_path / name)


@pytest.mark.parametrize(("x", "y"), [("train_x", "train_y"), ("x-small", "y-small"), ("max x", "max y")])
def test_the_targets_lie_under_the_name_with_y(tmp_path: Path, x: str, y: str) -> None:
    np.save(tmp_path / f"{x}.npy", np.ones((3, 2)))
    np.save(tmp_path / f"{y}.npy", np.arange(3))
    assert load(tmp_path / f"{x}.npy").y.tolist() == [0, 1, 2]


def test_a_folder_with_x_and_y_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "y.npy", np.arange(3))
    assert load(tmp_path).y.tolist() == [0, 1, 2]


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([[Opened()], [Opened()]], dtype=object)
    np.savez(tmp_path / "d.npz", x=objects, y=np.arange(2))
    np.save(tmp_path / "x.npy", objects)
    np.save(tmp_path / "y.npy", np.arange(2))
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Opened()))
    with pytest.raises(DataError, match=r"d\.npz: array x: it holds Python objects"):
        load(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"x\.npy: it holds Python objects"):
        load(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"p\.npz: not an \.npz archive"):
        load(tmp_path / "p.npz")
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Opened()))
    with pytest.raises(DataError, match=r"x\.npy: not a \.npy file"):
        load(tmp_path / "x.npy")
    assert not Path("unpickled").exists()


def test_an_archive_without_x_names_what_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.ones((2, 2)), labels=np.arange(2))
    with pytest.raises(DataError, match=r"d\.npz: the archive holds images, labels. It needs arrays called x and y"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize("which", ["x.npy", "y.npy"])
def test_every_truncation_of_a_pair_is_named(tmp_path: Path, which: str) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "y.npy", np.arange(3))
    content = (tmp_path / which).read_bytes()
    for size in range(len(content)):
        (tmp_path / which).write_bytes(content[:size])
        with pytest.raises(DataError, match=rf"{which}: (truncated|not a \.npy file)"):
            load(tmp_path / "x.npy")
    (tmp_path / which).write_bytes(content[:-1])
    with pytest.raises(DataError, match=f"{which}: truncated: the file has fewer bytes than its header says"):
        load(tmp_path / "x.npy")


def loaded_or_refused(path: Path) -> Dataset | str:
    try:
        return load(path)
    except DataError as error:
        return str(error)


def test_no_damaged_archive_passes_as_other_data(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    np.savez_compressed(path, x=x, y=y)
    content = path.read_bytes()
    broken = [content[:size] for size in range(0, len(content), 5)]
    broken += [content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :] for at in range(len(content))]
    refused = 0
    for other in broken:
        path.write_bytes(other)
        found = loaded_or_refused(path)
        if isinstance(found, str):
            assert found.startswith(f"{path}: ")
            refused += 1
        else:  # Time stamps and other fields of the archive that carry no data.
            np.testing.assert_array_equal(found.x, x)
            np.testing.assert_array_equal(found.y, y)
    assert refused > len(broken) // 2


def test_wild_headers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "y.npy", np.arange(3))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(3, 2)", b"(3,-2)"))
    with pytest.raises(DataError, match=r"x\.npy: "):
        load(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(content.replace(b"(3, 2)", b"(3, 9)"))
    with pytest.raises(DataError, match=r"x\.npy: truncated"):
        load(tmp_path / "x.npy")


def test_a_mapped_file_s_faults_are_named_by_file_and_place(tmp_path: Path) -> None:
    x: Array = np.ones((5000, 700), dtype=np.float32)
    x[4321, 17] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(5000))
    with pytest.raises(DataError, match=r"x\.npy: x, row 4321, feature 17 must be a finite number, got nan"):
        load(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.arange(4999))
    np.save(tmp_path / "x.npy", np.ones((5000, 2)))
    with pytest.raises(DataError, match=r"x\.npy: x has 5000 rows and y has 4999"):
        load(tmp_path / "x.npy")


def test_what_cannot_be_named_or_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file or folder"):
        load(tmp_path / "nowhere.csv")
    (tmp_path / "data.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"data\.txt: this data format cannot be read. Name \.csv, .*\.npz, .*x\.npy"):
        load(tmp_path / "data.txt")
    data = Dataset(np.ones((2, 2)))
    assert load(data) is data


def test_no_bit_of_an_archive_changes_without_notice(tmp_path):
    x, y = np.arange(60.0).reshape(20, 3), np.arange(20) % 3
    path = tmp_path / "d.npz"
    np.savez(path, x=x, y=y)
    good = path.read_bytes()
    for bit in [*range(0, 8 * 300, 7), *range(8 * (len(good) - 600), 8 * len(good), 7), *range(0, 8 * len(good), 97)]:
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            data = load(path)
        except DataError:
            continue
        np.testing.assert_array_equal(data.x, x)
        np.testing.assert_array_equal(data.y, y)


def test_numbers_of_rows_are_compared_before_arrays_are_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1000, 3)), y=np.arange(999))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(DataError, match=r"d\.npz: x and y must have .* rows, got x 1000, y 999\. Save one target"):
        load(tmp_path / "d.npz")
