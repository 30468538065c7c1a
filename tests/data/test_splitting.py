import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnengine.data import Dataset, Preprocessing, load_digits, split, split_dataset, task_of
from bnengine.errors import DataError, InputError

seeds = st.integers(0, 2**32)
fractions = st.floats(0, 0.99)


@settings(deadline=None)  # A busy machine is no failure.
@given(n=st.integers(1, 60), fraction=fractions, seed=seeds)
def test_a_plain_split_holds_every_row_once(n: int, fraction: float, seed: int) -> None:
    train, valid = split(n, fraction=fraction, seed=seed, stratify=False)
    assert sorted([*train, *valid]) == list(range(n))
    assert train.dtype == valid.dtype == np.int64
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    assert len(train) >= 1
    assert abs(len(valid) - n * fraction) <= 1


@settings(deadline=None)  # A busy machine is no failure.
@given(labels=st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), fraction=fractions, seed=seeds)
def test_a_stratified_split_takes_each_class_s_share(labels: list[str], fraction: float, seed: int) -> None:
    y = np.array(labels)
    train, valid = split(y, fraction=fraction, seed=seed, stratify=True)
    assert sorted([*train, *valid]) == list(range(len(y)))
    for label in set(labels):
        size, taken = int((y == label).sum()), int((y[valid] == label).sum())
        assert taken < size
        assert abs(taken - size * fraction) < 1 + 1e-3
        if size == 1:
            assert taken == 0


def test_the_largest_remainders_get_the_rows_that_are_left() -> None:
    # 0.25 of 10, 7, 5 and 1 rows: 2.5, 1.75, 1.25 and none; 5.5 in all, rounded up to 6: 2, 1, 1 and two more,
    # for the remainders 0.75 and 0.5.
    y = np.repeat(["a", "b", "c", "d"], [10, 7, 5, 1])
    _, valid = split(y, fraction=0.25, seed=3, stratify=True)
    assert {k: int((y[valid] == k).sum()) for k in "abcd"} == {"a": 3, "b": 2, "c": 1, "d": 0}


def test_digits_are_divided_80_to_20_within_every_class() -> None:
    y = load_digits().y
    train, valid = split(y, seed=0, stratify=True)
    assert (len(train), len(valid)) == (1438, 359)
    assert (np.abs(np.bincount(y[valid]) - 0.2 * np.bincount(y)) < 1).all()


def test_the_seed_alone_decides_which_rows() -> None:
    first = split(100, seed=5, stratify=False)
    again = split(100, seed=5, stratify=False)
    np.testing.assert_array_equal(first[1], again[1])
    assert first[1].tolist() != split(100, seed=6, stratify=False)[1].tolist()


def test_over_many_seeds_each_row_validates_equally_often() -> None:
    seen = np.zeros(20)
    for seed in range(500):
        seen[split(20, fraction=0.25, seed=seed, stratify=False)[1]] += 1
    # 500 draws with probability 1/4: 125 with a standard deviation of 9.7; six of them for any of 20 rows.
    assert (np.abs(seen - 125) < 6 * 9.7).all()


def test_two_rows_give_one_to_validate_and_a_fraction_of_0_none() -> None:
    assert [len(part) for part in split(2, seed=0, stratify=False)] == [1, 1]
    assert [len(part) for part in split(1, seed=0, stratify=False)] == [1, 0]
    assert [len(part) for part in split(9, fraction=0, seed=0, stratify=False)] == [9, 0]
    assert [len(part) for part in split(np.array(["a", "b"]), seed=0, stratify=True)] == [2, 0]


def test_a_data_set_s_own_validation_rows_are_kept() -> None:
    data = Dataset(np.ones((5, 2)), np.arange(5), validation=np.array([4, 1]))
    train, valid = split_dataset(data, seed=0, task="classification")
    assert (train.tolist(), valid.tolist()) == ([0, 2, 3], [1, 4])


def test_a_regression_is_divided_without_classes() -> None:
    data = Dataset(np.ones((10, 2)), np.linspace(0, 1, 10))
    train, valid = split_dataset(data, seed=0, task="regression")
    assert (len(train), len(valid)) == (8, 2)
    with pytest.raises(DataError, match=r"^data: y, row 1 must be a string, a whole number .* got 0\.111"):
        split_dataset(data, seed=0, task="classification")


def test_a_split_that_leaves_nothing_to_validate_is_refused() -> None:
    data = Dataset(np.ones((10, 2)), np.arange(10))
    with pytest.raises(DataError, match=r"^data: the share of rows to validate must leave some, got 0\.2 of 10 rows"):
        split_dataset(data, seed=0, task="classification")
    assert len(split_dataset(data, fraction=0, seed=0, task="classification")[1]) == 0


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(200) // 10, "classification"),
        (np.arange(20), "classification"),
        (np.arange(200) / 7, "regression"),
        (np.ones((20, 3)) / 7, "regression"),
        (np.arange(200).astype(str), "classification"),
        (np.arange(20) % 2 == 0, "classification"),
    ],
)
def test_the_task_follows_from_the_targets(y: np.ndarray, task: str) -> None:
    data = Dataset(np.ones((len(y), 2)), y)
    assert task_of(data) == task
    assert task_of(Dataset(data.x, y, task="regression")) == "regression"
    assert task_of(data, "classification") == "classification"


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.arange(200), "200 different whole numbers in 200 rows, which may be classes or quantities. Pass task="),
        (np.arange(209.0) // 10 + 5, "21 different whole numbers in 209 rows"),
        (np.eye(3)[[0, 1, 2, 0]], "must be one label a row, got one-hot rows of shape (4, 3). Pass y.argmax(axis=1)"),
        (np.eye(3, dtype=bool)[[0, 1, 2, 0]], "got one-hot rows"),
    ],
)
def test_targets_that_leave_a_doubt_are_refused(y: np.ndarray, text: str) -> None:
    data = Dataset(np.ones((len(y), 2)), y)
    for call in (task_of, Preprocessing.fit, lambda data: split_dataset(data, seed=0)):
        with pytest.raises(DataError, match=re.escape(text)):
            call(data)


def test_what_cannot_be_split_is_named() -> None:
    with pytest.raises(InputError, match=r"split: fraction must be .* of at least 0 and below 1, got 1\.0"):
        split(10, fraction=1.0, seed=0, stratify=False)
    with pytest.raises(InputError, match="split: the number of rows must be an integer of at least 1, got 0"):
        split(0, seed=0, stratify=False)
    with pytest.raises(InputError, match=r"stratify needs one label a row, \(n,\), got a count"):
        split(10, seed=0, stratify=True)
    with pytest.raises(InputError, match=r"got targets of shape \(4, 2\)"):
        split(np.ones((4, 2)), seed=0, stratify=True)
    with pytest.raises(DataError, match=r"data: there are no targets y\. Training needs them"):
        split_dataset(Dataset(np.ones((4, 2))), seed=0, task="regression")
