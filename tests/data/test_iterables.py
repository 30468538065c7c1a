from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bnengine.data import Dataset, IterableSource, Preprocessing
from bnengine.errors import DataError, InputError

X = np.arange(12.0).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 1, 0])
PAIRS = [(X[:4], Y[:4]), (X[4:], Y[4:])]


def generator() -> Iterator[Any]:
    yield from PAIRS


@pytest.mark.parametrize("factory", [PAIRS, generator, lambda: PAIRS, lambda: iter(PAIRS)])
def test_every_epoch_iterates_anew_and_counts_its_samples(factory: Any) -> None:
    source = IterableSource(factory)
    assert source.rows is None
    for _ in range(2):
        batches = list(source.epoch())
        assert [b.samples.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5]]
        np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), X.astype(np.float32))
        assert [b.y.tolist() for b in batches] == [[0, 1, 0, 1], [1, 0]]
        assert batches[0].x.dtype == np.float32


def test_batches_passed_over_are_counted() -> None:
    (batch,) = IterableSource(PAIRS).epoch(skip=1)
    assert batch.samples.tolist() == [4, 5]
    assert list(IterableSource(PAIRS).epoch(skip=2)) == []


def test_weights_and_preprocessing_go_along() -> None:
    preprocessing = Preprocessing.fit(Dataset(X, np.array(["a", "b"])[Y]))
    source = IterableSource([(X, np.array(["a", "b"])[Y], np.arange(6))], preprocessing, "float64")
    (batch,) = source.epoch()
    np.testing.assert_allclose(batch.x.std(axis=0), 1.0, rtol=1e-12)
    assert batch.y.tolist() == Y.tolist()
    assert (batch.weights.dtype, batch.weights.tolist()) == (np.float64, [0, 1, 2, 3, 4, 5])


def test_an_exhausted_iterator_is_named_in_its_second_epoch() -> None:
    source = IterableSource(generator(), name="mine")
    assert len(list(source.epoch())) == 2
    with pytest.raises(DataError, match=r"mine: the epoch before exhausted the generator.* returns a new generator"):
        next(source.epoch())
    once = generator()
    source = IterableSource(lambda: once, name="mine")
    assert len(list(source.epoch())) == 2
    with pytest.raises(DataError, match="mine: the epoch before exhausted the generator"):
        next(source.epoch())


def test_no_batch_at_all_is_named() -> None:
    with pytest.raises(DataError, match="mine: the iterable gave no batch"):
        list(IterableSource([], name="mine").epoch())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ((X[:2, :1], Y[:2]), r"samples must have the shape of the first batch, \(2,\), got \(1,\)"),
        ((X[:2], Y[:3]), "x has 2 rows and y has 3"),
        ((np.array([[1.0, 2.0], [np.nan, 1.0]]), Y[:2]), "x, row 1, feature 0 must be a finite number, got nan"),
        ((X[:2], np.array([1.0, np.nan])), "y, row 1 must be a finite number, got nan"),
        ((X[:0], Y[:0]), r"x must have at least one .*got shape \(0, 2\)"),
        ((X[:2].astype(int), Y[:2]), "x must have a floating dtype, got int64"),
        ((X[:2], ["a", "b"]), "y must be numbers, got <U1. Pass a preprocessing"),
        ((X[:2], Y[:2], np.ones(3)), r"weights must be .*got float64 \(3,\)"),
        ((X[:2] * 1e300, Y[:2]), r"x, row 0, feature 1 is 1e\+300, too large for float32"),
        ((X[:2],), r"it must be \(x, y\) or \(x, y, weights\), got tuple"),
        (X[:2], r"it must be \(x, y\).*got ndarray"),
    ],
)
def test_a_faulty_batch_is_named_by_its_number(second: Any, message: str) -> None:
    batches = IterableSource([PAIRS[0], second], name="mine").epoch()
    next(batches)
    with pytest.raises(DataError, match=f"^mine: batch 1: {message}"):
        next(batches)


def test_an_iterable_has_no_positions() -> None:
    with pytest.raises(InputError, match=r"mine: rows \[3, 1\] \.\.\. were requested by position"):
        IterableSource(PAIRS, name="mine").take(np.array([3, 1]))
    with pytest.raises(InputError, match=r"IterableSource: the argument must be an iterable or a callable .*, got 3"):
        IterableSource(3)
    with pytest.raises(DataError, match="mine: the callable must return an iterable, got 3"):
        next(IterableSource(lambda: 3, name="mine").epoch())
