import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine._typing import Array
from bnengine.data import ArraySource, Dataset, Preprocessing, Source, groups, load_digits, order
from bnengine.errors import DataError, InputError


@settings(deadline=None)  # A busy machine is no failure.
@given(n=st.integers(1, 200), size=st.integers(1, 70), last=st.sampled_from(["join", "drop", "keep"]))
def test_batches_cover_the_rows_in_order_and_once(n: int, size: int, last: str) -> None:
    if last == "drop" and n < size:
        with pytest.raises(InputError, match=f"groups: {n} samples fill no batch of {size}"):
            groups(n, size, last=last)
        return
    found = groups(n, size, last=last)
    rows = [row for part in found for row in range(n)[part]]
    lengths = [part.stop - part.start for part in found]
    assert rows == list(range(n - n % size if last == "drop" else n))
    assert set(lengths[:-1]) <= {size}
    if last == "join" and n > 1 and size > 1:
        assert min(lengths) >= 2
        assert max(lengths) <= size + 1
    if last == "keep":
        assert lengths[-1] == (n % size or size)


def test_a_last_batch_of_one_joins_the_batch_before() -> None:
    assert groups(9, 4) == [slice(0, 4), slice(4, 9)]
    assert groups(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert groups(9, 4, last="keep") == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert groups(9, 4, last="drop") == [slice(0, 4), slice(4, 8)]
    assert groups(1, 4) == [slice(0, 1)]


def test_batches_that_cannot_be_are_named() -> None:
    with pytest.raises(InputError, match="groups: batch_size must be an integer of at least 1, got 0"):
        groups(10, 0)
    with pytest.raises(InputError, match="groups: last must be 'join', 'drop' or 'keep', got 'skip'"):
        groups(10, 2, last="skip")
    with pytest.raises(InputError, match="groups: n must be an integer of at least 1, got 0"):
        groups(0, 2)


def test_an_order_is_a_permutation_given_by_seed_and_epoch() -> None:
    first = order(50, seed=1, epoch=2)
    assert sorted(first.tolist()) == list(range(50))
    np.testing.assert_array_equal(first, order(50, seed=1, epoch=2))
    assert first.tolist() != order(50, seed=1, epoch=3).tolist()
    assert first.tolist() != order(50, seed=2, epoch=2).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_gathered_with_their_numbers_in_the_data_set(dtype: str) -> None:
    data = load_digits()
    rows = np.arange(1, 1797, 2)
    preprocessing = Preprocessing.fit(data, rows)
    weights = np.arange(1797.0)
    source: Source = ArraySource(data.x, data.y, weights, preprocessing, rows, dtype)
    assert source.rows == 898
    batch = source.take(np.array([5, 0, 5]))
    assert batch.samples.tolist() == [11, 1, 11]
    assert batch.samples.dtype == np.int64
    assert (batch.x.dtype, batch.x.shape) == (np.dtype(dtype), (3, 64))
    np.testing.assert_array_equal(batch.x, preprocessing.inputs(data.x[[11, 1, 11]], dtype))
    assert batch.y.tolist() == data.y[[11, 1, 11]].tolist()
    assert batch.y.dtype == np.int64
    assert batch.weights.tolist() == [11.0, 1.0, 11.0]
    assert batch.weights.dtype == np.dtype(dtype)


def test_an_epoch_hands_out_every_row_once() -> None:
    x = np.arange(46.0).reshape(23, 2)
    source = ArraySource(x, np.arange(23))
    epoch = order(source.rows, seed=0, epoch=0)
    taken = np.concatenate([source.take(epoch[part]).y for part in groups(source.rows, 4)])
    assert sorted(taken.tolist()) == list(range(23))


def test_arrays_ready_for_a_network_need_no_preprocessing() -> None:
    x = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    batch = ArraySource(x, np.array([True, False, True, True])).take(np.array([3, 1]))
    assert (batch.x.dtype, batch.x.shape) == (np.float32, (2, 3, 2))
    assert (batch.y.dtype, batch.y.tolist()) == (np.int64, [1, 0])
    assert batch.weights is None
    assert ArraySource(x, np.ones(4, np.float16)).take(np.array([0])).y.tolist() == [[1.0]]
    assert ArraySource(x, None).take(np.array([0])).y is None
    assert not np.shares_memory(ArraySource(x, None, dtype="float16").take(np.arange(4)).x, x)


def test_arrays_of_any_layout_give_the_same_batches() -> None:
    x = np.arange(24.0).reshape(6, 4)
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((12, 8))
    wide[::2, ::2] = x
    expected = ArraySource(x, None).take(np.array([4, 1])).x
    for other in (np.asfortranarray(x), read_only, wide[::2, ::2], x.astype(">f8")):
        np.testing.assert_array_equal(ArraySource(other, None).take(np.array([4, 1])).x, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": np.ones((3, 2), np.int32)},
            r"x must have a floating dtype, got int32.* \(Preprocessing\.fit",
        ),
        ({"y": np.array(["a", "b", "c"])}, "y must be numbers, got <U1. Pass a preprocessing"),
        ({"y": np.zeros(2)}, "x has 3 rows and y has 2"),
        ({"x": np.array([[1.0], [np.nan], [2.0]])}, "x, row 1, feature 0 must be a finite number, got nan"),
        ({"y": np.array([1.0, 2.0, np.inf])}, "y, row 2 must be a finite number, got inf"),
        ({"weights": np.ones(2)}, r"weights must be one real number per sample, \(3,\), got float64 \(2,\)"),
        ({"weights": np.array([1, -2, 1])}, "weights, row 1 must not be negative, got -2"),
        ({"weights": np.array([1, 1, np.nan])}, "weights, row 2 must be a finite number, got nan"),
        ({"indices": np.array([0, -1])}, "indices: index -1 is outside the data's 3 rows"),
        ({"indices": np.array([0.0, 1.0])}, "indices: indices must be a one-dimensional array of integers"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(arguments: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: {message}"):
        ArraySource(**{"x": np.ones((3, 2)), "y": np.arange(3), "name": "mine", **arguments})


def test_positions_outside_are_named_and_never_wrap_around() -> None:
    source = ArraySource(np.ones((5, 2)), None, indices=np.array([0, 1, 2]), name="mine")
    for wrong in (-1, 3):
        with pytest.raises(DataError, match=f"mine: positions: index {wrong} is outside the data's 3 rows"):
            source.take(np.array([0, wrong]))
    assert source.take(np.array([], dtype=np.int64)).x.shape == (0, 2)


def test_a_value_too_large_for_the_network_s_dtype_is_named() -> None:
    source = ArraySource(np.array([[1.0, 2.0], [3.0, 1e300]]), None, indices=np.array([1]), name="mine")
    with pytest.raises(DataError, match=r"mine: x, row 1, feature 1 is 1e\+300, too large for float32"):
        source.take(np.array([0]))


def test_a_label_that_training_has_not_seen_is_named() -> None:
    x = np.ones((4, 2))
    preprocessing = Preprocessing.fit(Dataset(x, ["cat", "dog", "cat", "emu"]), np.array([0, 1]))
    with pytest.raises(DataError, match=r"mine: y, row 3 must be one of .* classes, 'cat', 'dog', got 'emu'"):
        ArraySource(x, ["cat", "dog", "cat", "emu"], None, preprocessing, np.array([2, 3]), name="mine")
    with pytest.raises(DataError, match=r"samples must have .*got \(3,\) \(3 features\)"):
        ArraySource(np.ones((4, 3)), None, None, preprocessing)
