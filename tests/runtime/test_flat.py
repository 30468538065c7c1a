"""Flat buffers: views on cache lines, and what is written or added."""

from types import SimpleNamespace

import numpy as np
import pytest

from bnengine.errors import BackendError
from bnengine.runtime.flat import ALIGNMENT, Flat, Parameter, Statistics, size


def handles():
    return [Parameter((3, 5)), Parameter((16,)), Parameter((1,)), Parameter((2, 2, 5))]


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float64", 8)])
def test_each_view_begins_on_a_cache_line(backend, dtype, itemsize):
    given, xp = handles(), backend.xp
    flat = Flat.zeros(xp, given, backend.dtype(dtype), itemsize=itemsize, device=backend.device)
    step = ALIGNMENT // itemsize
    assert ALIGNMENT == 64
    assert list(flat) == given
    expected, offset = {}, 0
    for handle in given:
        expected[handle] = offset
        offset += (size(handle) + step - 1) // step * step
    assert flat.offsets == expected
    assert tuple(flat.array.shape) == (offset,)
    for handle in given:
        assert tuple(flat[handle].shape) == handle.shape
        flat[handle][...] = 3.0
    assert flat.ranges([]) == ()
    host = backend.to_numpy(flat.array)
    inside = np.zeros(offset, bool)
    for a, b in flat.ranges(given):
        inside[a:b] = True
    np.testing.assert_array_equal(host[inside], 3.0)
    np.testing.assert_array_equal(host[~inside], 0.0)
    assert inside.sum() == sum(size(h) for h in given)


def test_statistics_have_three_rows(backend):
    given = [Statistics(4, decay=0.9, unbiased=True), Statistics(9, decay=None, unbiased=False)]
    flat = Flat.zeros(backend.xp, given, backend.dtype("float64"), itemsize=8, device=backend.device)
    assert tuple(flat.array.shape) == (3, 8 + 16)
    assert tuple(flat[given[1]].shape) == (3, 9)
    flat[given[1]][1, ...] = 2.0
    np.testing.assert_array_equal(backend.to_numpy(flat.array)[1, 8:17], 2.0)
    assert backend.to_numpy(flat.array).sum() == 18.0


def test_into_writes_first_and_adds_ever_after():
    a, b, frozen = Parameter((2,)), Parameter((3,)), Parameter((2,))
    frozen.frozen = True
    flat = Flat.zeros(np, [a, b, frozen], np.float64, itemsize=8)
    first = flat.into(dW=a, db=b, dc=frozen, dd=None)
    assert {name: into.adds for name, into in first.items()} == {"dW": False, "db": False}
    assert first["dW"].array is flat[a]
    assert {name: into.adds for name, into in flat.into(dW=a).items()} == {"dW": True}
    flat.start()
    assert flat.into(db=b)["db"].adds is False
    flat.array[...] = 7.0
    flat.finish()  # only b was written
    np.testing.assert_array_equal(flat[a], 0.0)
    np.testing.assert_array_equal(flat[b], 7.0)
    np.testing.assert_array_equal(flat[frozen], 0.0)
    flat.start()
    for value in (1.0, 2.0):
        flat.put(a, np.asarray([value, -value]))
        flat.put(frozen, np.asarray([value, value]))
    np.testing.assert_array_equal(flat[a], [3.0, -3.0])
    np.testing.assert_array_equal(flat[frozen], 0.0)


def test_like_and_over_have_the_same_layout():
    given = handles()
    flat = Flat.zeros(np, given, np.float64, itemsize=8)
    flat.array[...] = 5.0
    like = flat.like()
    assert like.offsets == flat.offsets
    np.testing.assert_array_equal(like.array, 0.0)
    other = np.arange(flat.array.size, dtype=np.float64)
    over = flat.over(other)
    assert over.array is other
    over[given[1]][...] = -1.0
    np.testing.assert_array_equal(other[flat.offsets[given[1]] :][:16], -1.0)
    np.testing.assert_array_equal(flat.array, 5.0)


def test_a_library_whose_slices_are_copies_is_named():
    class Copies(np.ndarray):
        def __getitem__(self, key):
            return np.array(super().__getitem__(key))

    copying = SimpleNamespace(zeros=lambda shape, dtype, **_: np.zeros(shape, dtype).view(Copies))
    with pytest.raises(
        BackendError, match=r"^Flat: in .*numpy a write through a slice does not show in its array.*Use NumPy"
    ):
        Flat.zeros(copying, handles(), np.float64, itemsize=8)
