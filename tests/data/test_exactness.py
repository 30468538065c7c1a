"""Whole numbers keep their digits, labels are compared exactly, and rounding is not taken for a signal."""

from itertools import product

import numpy as np
import pytest

from bnengine.data import ArraySource, Dataset, Preprocessing, load
from bnengine.data.labels import Labels
from bnengine.errors import DataError

STEPS = np.arange(0, 2000, 10)
NANOSECONDS = 1_700_000_000_000_000_000
VALUES = {
    "int64": [-(2**63), -5, 0, 3, 2**53, 2**53 + 1, 2**63 - 1],
    "uint64": [0, 3, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1],
    "float64": [-5.0, 0.0, 3.0, 2.0**53, 2.0**63, 2.0**64, 1e30],
    "int8": [-5, 0, 3],
    "bool": [0, 1],
    ">i8": [0, 3, 2**60 + 1],
}


def fitted(x, **options):
    return Preprocessing.fit(Dataset(x, np.arange(len(x)) % 2, name="times"), **options)


@pytest.mark.parametrize("dtype", ["int64", "uint64", ">i8", "longdouble"])
def test_nanoseconds_are_standardized_as_exact_arithmetic_does(dtype):
    if dtype == "longdouble" and np.finfo("longdouble").nmant < 60:
        pytest.skip("this platform's longdouble has no more digits than float64")
    x = np.stack([NANOSECONDS + STEPS, STEPS[::-1]], axis=1).astype(dtype)
    made = fitted(x)
    values, arrays = made.to_state()
    for preprocessing in (made, Preprocessing.from_state(values, arrays)):
        source = ArraySource(x, None, preprocessing=preprocessing, dtype="float64")
        got = source.take(np.arange(len(x))).x
        expected = (STEPS - STEPS.mean()) / STEPS.std()
        np.testing.assert_allclose(got, np.stack([expected, -expected], axis=1), rtol=0, atol=1e-12)
        assert source.raw() is None


def test_the_ends_of_64_bits_are_standardized_without_overflow():
    x = np.asarray([[-(2**63)], [2**63 - 1], [2**63 - 1], [-(2**63)]])
    np.testing.assert_allclose(fitted(x).inputs(x, "float64")[:, 0], [-1, 1, 1, -1], rtol=1e-15)
    x = np.asarray([[2**64 - 1], [2**64 - 3]] * 2, np.uint64)
    np.testing.assert_allclose(fitted(x).inputs(x, "float64")[:, 0], [1, -1, 1, -1], rtol=1e-15)


def test_real_targets_with_more_digits_than_float64_are_refused():
    with pytest.raises(DataError, match=r"^data: y must be numbers that float64 holds.* Subtract the least value"):
        Preprocessing.fit(Dataset(np.zeros((200, 1)), NANOSECONDS + STEPS), task="regression")


@pytest.mark.parametrize(("known", "wanted"), list(product(VALUES, VALUES)))
def test_labels_of_two_dtypes_are_compared_as_integers(known, wanted):
    values = np.unique(np.asarray([v for v in VALUES[known] if abs(v) < 2**64], known))
    integers = [int(v) for v in values.tolist()]
    if min(integers) < 0 and max(integers) >= 2**63:  # no integer dtype of NumPy holds both
        values, integers = values[:-1], integers[:-1]
    labels = Labels(values)
    for value in VALUES[wanted]:
        y = np.asarray([value], wanted)
        if int(y[0]) in integers:
            assert integers[int(labels.codes(y, "data")[0])] == int(y[0])
        else:
            with pytest.raises(DataError, match="must be one of the model's classes"):
                labels.codes(y, "data")


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (["11898508762506083287", "11898508762506083288", "3"], "uint64"),
        (["9223372036854775807", "-9223372036854775808", "5"], "int64"),
        (["1234567890123456789012", "1234567890123456789013", "7"], "str"),
        (["-1", "18446744073709551615", "7"], "str"),
        (["1 ", "2", "1\t"], "int64"),
        (["cat", "cat ", '"cat"', " cat\t"], "str"),
    ],
)
def test_labels_of_a_table_keep_their_digits_and_lose_their_blanks(tmp_path, labels, dtype):
    (tmp_path / "a.csv").write_text("a,t\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    y = load(tmp_path / "a.csv", target="t").y
    assert y.dtype.kind == np.dtype(dtype).kind
    assert [str(v) for v in y.tolist()] == [label.strip().strip('"') for label in labels]


def test_a_whole_number_of_a_table_that_float64_would_round_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(f"a,t\n{2**60},x\n{NANOSECONDS + 1},y\n")
    with pytest.raises(DataError, match=rf"line 3, column 'a': .* got '{NANOSECONDS + 1}', which it would round"):
        load(tmp_path / "a.csv", target="t")


def test_a_feature_that_differs_by_rounding_alone_is_constant():
    x = np.stack([np.where(STEPS % 3 == 0, 0.1 + 0.2, 0.3), np.where(STEPS == 70, 0.1 * 3 / 3, 0.1), STEPS], axis=1)
    for given in (x, x.astype(np.float32)):
        scaled = fitted(given).inputs(given + np.asarray([0.01, 0.0, 0.0]), "float64")
        assert (scaled[:, :2] == 0).all()
        assert scaled[:, 2].std() == pytest.approx(1, rel=1e-12)
    small = np.asarray([1.0, 1.0 + 2**-48] * 100)[:, None]  # sixteen roundings apart: a signal
    assert abs(fitted(small).inputs(small, "float64")).min() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [(np.arange(2000, 2011), "float16"), ([2**23, 2**23 + 1], "float32"), ([2**53, 2**53 - 1], "int64")],
)
def test_exact_numbers_one_rounding_apart_are_a_signal(values, dtype):
    x = np.resize(np.asarray(values, dtype), (220, 1))
    wide = (x - x.min()).astype(np.float64)
    np.testing.assert_allclose(fitted(x).inputs(x, "float64"), (wide - wide.mean()) / wide.std(), rtol=0, atol=1e-9)
