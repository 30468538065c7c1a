import datetime

import numpy as np
import pytest

from bnengine._typing import Array
from bnengine.data import Dataset, load_digits
from bnengine.data.checks import CHUNK_ELEMENTS, chunks
from bnengine.data.dataset import joined
from bnengine.errors import DataError

X = np.arange(6.0).reshape(3, 2)
Y = np.array([0, 1, 0])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[1, None]]), r"x must have .*got object \(Python objects\)"),
        (np.ones((3, 2)) * 1j, r"x must have .*got complex128 \(complex numbers\)"),
        (
            np.array([[datetime.date(2020, 1, 1)]], dtype="datetime64[D]"),
            r"x must have .*got datetime64\[D\] \(dates\)",
        ),
        (np.array([["1", "2"]]), r"x must have real numbers, .*got <U1 \(text\)"),
        (np.ones(3), r"x must have an axis of samples .*got shape \(3,\)\. .* x\.reshape\(-1, 1\)"),
        (np.float64(3.0), r"x must have .*got shape \(\)"),
        (np.ones((0, 2)), r"x must have at least one .*got shape \(0, 2\)"),
        (np.ones((3, 0)), r"x must have at least one .*got shape \(3, 0\)"),
        ([[1.0, 2.0], [3.0]], "x, of type list, cannot be read by NumPy"),
        (np.ma.array(X, mask=X > 4), "x has masked values. Fill them in"),
        (np.where(X == 3, np.nan, X), "x, row 1, feature 1 must be a finite number, got nan"),
        (np.where(X == 4, -np.inf, X), "x, row 2, feature 0 must be a finite number, got -inf"),
        (np.full((3, 2, 2), np.nan, np.float16), r"x, row 0, feature \(0, 0\) must be a finite number, got nan"),
    ],
)
def test_inputs_that_cannot_be_used_are_named(x: Array, message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: {message}"):
        Dataset(x, Y, name="mine")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 1]), "x has 3 rows and y has 2. Every row of x needs its row of y"),
        (np.array([0.5, np.nan, 1]), "y, row 1 must be a finite number, got nan"),
        (np.array([[0.5, 1], [2, np.inf], [3, 4]]), "y, row 1, feature 1 must be a finite number, got inf"),
        (np.array([1j, 0, 0]), r"y must have .*got complex128 \(complex numbers\)"),
        (np.array(["a", 3, "b"], dtype=object), "y has dtype object and row 1 holds 3, of type int"),
        (np.array([b"a", b"\xff", b"b"]), r"the label of row 1, b'\\xff', is not UTF-8 text"),
        (np.zeros((3, 2, 2)), r"y must be \(samples,\) or \(samples, targets\), got shape \(3, 2, 2\)"),
        (np.zeros((3, 0)), r"y must be .*got shape \(3, 0\)"),
    ],
)
def test_targets_that_cannot_be_used_are_named(y: Array, message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: {message}"):
        Dataset(X, y, name="mine")


class OnTheGpu:
    """What CuPy does when NumPy asks for its array."""

    def __array__(self, *_: object, **__: object) -> Array:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")


def test_an_array_on_a_gpu_is_named() -> None:
    with pytest.raises(
        DataError, match=r"x, of type OnTheGpu, cannot be read by NumPy \(Implicit .*\). Data sets are in"
    ):
        Dataset(OnTheGpu(), Y)


@pytest.mark.parametrize("labels", [["a", "ä", "b"], [b"a", "ä".encode(), b"b"], np.array(["a", "ä", "b"], dtype="T")])
def test_text_labels_of_every_form_become_strings(labels: Array) -> None:
    data = Dataset(X, labels)
    assert data.y.dtype.kind == "U"
    assert data.y.tolist() == ["a", "ä", "b"]
    assert Dataset(X, np.array(["a", "ä", "b"], dtype=object)).y.tolist() == ["a", "ä", "b"]


def test_the_first_fault_is_found_in_any_chunk() -> None:
    width = 1000
    x = np.zeros((2 * CHUNK_ELEMENTS // width + 7, width), dtype=np.float16)
    for row in (0, CHUNK_ELEMENTS // width - 1, CHUNK_ELEMENTS // width, len(x) - 1):
        x[row, 999] = np.nan
        with pytest.raises(DataError, match=f"x, row {row}, feature 999 must be a finite number, got nan"):
            Dataset(x)
        x[row, 999] = 0


def test_chunks_cover_every_row_once() -> None:
    for rows, width in ((1, 1), (5, 2 * CHUNK_ELEMENTS), (3_000_000, 1), (10, 0)):
        parts = list(chunks(rows, width))
        assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])]
        assert parts[-1].stop == rows
        assert max(p.stop - p.start for p in parts) * width <= max(CHUNK_ELEMENTS, width)


def test_rows_set_apart_and_column_names_must_fit() -> None:
    with pytest.raises(DataError, match=r"mine: validation: index 3 is outside the data's 3 rows \(0 to 2\)"):
        Dataset(X, Y, name="mine", validation=np.array([0, 3]))
    with pytest.raises(DataError, match=r"mine: columns must have one name per feature \(2\), got 1"):
        Dataset(X, Y, name="mine", columns=("a",))


def test_parts_of_one_data_set_have_targets_of_one_kind() -> None:
    with pytest.raises(DataError, match="only one of the training and the validation part has targets"):
        joined(Dataset(X, Y), Dataset(X), "mine")
    with pytest.raises(DataError, match=r"targets are \(\) int64 a row, the validation part's \(\) <U1. They must be"):
        joined(Dataset(X, Y), Dataset(X, ["a", "b", "c"]), "mine")
    assert joined(Dataset(X), Dataset(X), "mine").y is None


def test_a_data_set_says_what_it_is() -> None:
    assert repr(load_digits()) == "Dataset('digits', x (1797, 8, 8) uint8, y (1797,) int64)"
    assert repr(Dataset(X)) == "Dataset('data', x (3, 2) float64, no targets)"
    assert len(Dataset(X)) == 3
