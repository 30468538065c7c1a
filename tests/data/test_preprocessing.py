import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bnengine as bn
from bnengine._typing import Array
from bnengine.data import Dataset, Preprocessing, load_digits, split_dataset
from bnengine.data.checks import CHUNK_ELEMENTS
from bnengine.errors import CheckpointError, DataError, InputError


def table(rows: int = 50, features: int = 4) -> Array:
    return np.random.default_rng(1).normal(3.0, 2.0, (rows, features)) * np.arange(1, features + 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool"])
def test_standardized_features_have_mean_0_and_variance_1(dtype: str) -> None:
    x = (table() * 3).astype(dtype)
    y = np.arange(50) % 2
    network = Preprocessing.fit(Dataset(x, y), scaling="standardize").inputs(x, "float64")
    wide = x.astype(np.float64)
    expected = np.where(wide.std(axis=0) > 0, (wide - wide.mean(axis=0)) / np.maximum(wide.std(axis=0), 1e-300), 0)
    np.testing.assert_allclose(network, expected, rtol=0, atol=1e-13)


def test_centring_takes_each_mean_and_one_deviation_for_all() -> None:
    x = np.array([[[0, 10]], [[2, 16]]], dtype=np.uint8)
    fitted = Preprocessing.fit(Dataset(x, [0, 1]), scaling="center")
    # Means 1 and 13, variances 1 and 9; their mean is 5.
    np.testing.assert_array_equal(fitted.mean, [1.0, 13.0])
    np.testing.assert_allclose(fitted.inputs(x, "float64"), np.array([[-1, -3], [1, 3]]) / np.sqrt(5), rtol=1e-15)


def test_the_unit_scale_divides_by_the_largest_of_training() -> None:
    x = np.array([[0, 4], [-8, 2], [3, 100]], dtype=np.int16)
    fitted = Preprocessing.fit(Dataset(x, [0, 1, 1]), np.array([0, 1]), scaling="unit")
    assert fitted.inputs(x).tolist() == [[0, 0.5], [-1, 0.25], [0.375, 12.5]]
    with pytest.raises(InputError, match="scaling 'unit' divides integers by their largest value, got x of float32"):
        Preprocessing.fit(Dataset(x.astype("float32"), [0, 1, 1]), scaling="unit")
    zeros = np.zeros((2, 2), dtype=np.uint8)
    assert Preprocessing.fit(Dataset(zeros, [0, 1]), scaling="unit").inputs(zeros).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float16", "float64"])
def test_no_scaling_hands_on_the_values_as_they_are(dtype: str) -> None:
    x = np.array([[1, 0], [0, 1]]).astype(dtype)
    found = Preprocessing.fit(Dataset(x, [0, 1]), scaling="none").inputs(x)
    assert (found.dtype, found.tolist()) == (np.float32, [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.ones((4, 2, 2), np.uint8), "center"),
        (np.ones((4, 2, 2), np.float32), "center"),
        (np.ones((4, 3), np.uint8), "center"),
        (np.ones((4, 3), np.int64), "standardize"),
        (np.ones((4, 3), np.float64), "standardize"),
    ],
)
def test_images_are_centered_and_tables_standardized_by_default(x: Array, expected: str) -> None:
    assert Preprocessing.fit(Dataset(x, [0, 1, 0, 1])).scaling == expected


def test_nothing_but_the_training_rows_is_looked_at() -> None:
    x, y = table(), np.arange(50) % 3
    train = np.arange(0, 40)
    other, labels = x.copy(), np.where(np.arange(50) < 40, y, 77)
    other[40:] = 1e30
    for scaling in ("center", "standardize"):
        first = Preprocessing.fit(Dataset(x, y), train, scaling=scaling)
        second = Preprocessing.fit(Dataset(other, labels), train, scaling=scaling)
        assert first.mean.tobytes() == second.mean.tobytes()
        assert first.inv_scale.tobytes() == second.inv_scale.tobytes()
        assert second.classes is not None
        assert second.classes.values.tolist() == [0, 1, 2]


def test_a_constant_feature_gives_exactly_0_whatever_comes() -> None:
    x = table()
    x[:, 1] = 0.1
    x[:, 2] = 1e6 / 3
    fitted = Preprocessing.fit(Dataset(x, np.arange(50) % 2), scaling="standardize")
    assert not fitted.inputs(x)[:, 1:3].any()
    assert not fitted.inputs(x + 5)[:, 1:3].any()
    constant = np.full((3, 2, 2), 7, np.uint8)
    assert not Preprocessing.fit(Dataset(constant, [0, 1, 0])).inputs(constant).any()


def test_a_large_mean_is_subtracted_before_anything_is_rounded() -> None:
    z = np.random.default_rng(0).normal(size=(1000, 3))
    x = 1e6 + z
    x[0] = 1e6 + 50  # An outlier in the first row, about which differences are taken.
    found = Preprocessing.fit(Dataset(x, np.arange(1000) % 2), scaling="standardize").inputs(x)
    exact = (x - 1e6) - (x - 1e6).mean(axis=0)
    np.testing.assert_allclose(found, exact / exact.std(axis=0), rtol=2e-7, atol=1e-9)


def test_chunks_give_what_one_pass_gives_up_to_rounding() -> None:
    width = 700
    x = np.random.default_rng(2).normal(5.0, 3.0, (2 * CHUNK_ELEMENTS // width + 3, width)).astype(np.float32)
    fitted = Preprocessing.fit(Dataset(x, np.arange(len(x)) % 2), scaling="standardize")
    wide = x.astype(np.float64)
    np.testing.assert_allclose(fitted.mean, wide.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(fitted.inv_scale, 1 / wide.std(axis=0), rtol=1e-13)


def test_the_same_values_give_the_same_bits_in_every_raw_dtype() -> None:
    x, y = load_digits().x, load_digits().y
    fitted = Preprocessing.fit(Dataset(x, y))
    expected = fitted.inputs(x).tobytes()
    for dtype in ("int64", "float16", "float32", "float64", ">f4"):
        assert fitted.inputs(x.astype(dtype)).tobytes() == expected
    assert fitted.inputs(x.reshape(-1, 64)).tobytes() == expected
    assert fitted.inputs(np.asfortranarray(x)).tobytes() == expected


@pytest.mark.parametrize(
    ("y", "values", "codes"),
    [
        (["dog", "cat", "emu", "cat"], ["cat", "dog", "emu"], [1, 0, 2, 0]),
        ([7, -3, 1000, -3], [-3, 7, 1000], [1, 0, 2, 0]),
        ([True, False, True, True], [False, True], [1, 0, 1, 1]),
        ([2.0, 5.0, 2.0, 2.0], [2.0, 5.0], [0, 1, 0, 0]),
        (np.array([[4], [4], [2], [4]], np.uint8), [2, 4], [1, 1, 0, 1]),
        (np.array([2**63, 1, 5, 1], np.uint64), [1, 5, 2**63], [2, 0, 1, 0]),
    ],
)
def test_labels_go_to_codes_and_back(y: Array, values: list[object], codes: list[int]) -> None:
    fitted = Preprocessing.fit(Dataset(table(4), y))
    assert fitted.classes is not None
    assert fitted.classes.values.tolist() == values
    assert fitted.outputs == len(values)
    found = fitted.targets(y)
    assert (found.dtype, found.tolist()) == (np.int64, codes)
    back = fitted.labels(found)
    assert back.tolist() == np.ravel(y).tolist()
    assert back.dtype == np.asarray(y).dtype


def test_named_classes_are_kept_though_training_lacks_one() -> None:
    data = load_digits()
    without_nine = np.flatnonzero(data.y != 9)
    assert Preprocessing.fit(data, without_nine).outputs == 10


def test_labels_of_another_width_of_the_same_kind_are_known() -> None:
    fitted = Preprocessing.fit(Dataset(table(3), [3, 5, 9]))
    assert fitted.targets(np.array([9, 3], np.uint8)).tolist() == [2, 0]
    assert fitted.targets(np.array([9.0, 3.0])).tolist() == [2, 0]
    words = Preprocessing.fit(Dataset(table(2), ["no", "yes"]))
    assert words.targets(np.array(["yes", "no"], dtype="U20")).tolist() == [1, 0]
    bools = Preprocessing.fit(Dataset(table(2), [False, True]))
    assert bools.targets(np.array([1, 0])).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"y, row 0 must be one of .* classes, False, True, got 2"):
        bools.targets(np.array([2]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([3, 4, 5], "y, row 1 must be one of the model's classes, 3, 5, 9, got 4"),
        ([3, 1000], r"y, row 1 must be one of .*got 1000"),
        ([-1, 3], r"y, row 0 must be one of .*got -1"),
        (["3", "5"], r"the labels are strings \('3', '5'\), the model's integers \(3, 5, 9\)"),
        ([3.0, 4.5], r"y, row 1 must be a string, a whole number .*, got 4\.5\. For real targets train"),
        ([[1, 0], [0, 1]], r"class labels must be one column, .*got shape \(2, 2\). .* y\.argmax\(axis=1\)"),
    ],
)
def test_labels_that_training_has_not_seen_are_named(y: Array, message: str) -> None:
    fitted = Preprocessing.fit(Dataset(table(3), [3, 5, 9]))
    with pytest.raises(DataError, match=f"^mine: {message}"):
        fitted.targets(np.asarray(y), name="mine")


def test_many_classes_are_shown_in_part() -> None:
    fitted = Preprocessing.fit(Dataset(table(12), np.arange(12)))
    with pytest.raises(DataError, match=r"classes, 0, 1, 2, 3, 4, 5, 6, 7 \.\.\. \(12 in all\)"):
        fitted.targets(np.array([12]))


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_real_targets_are_standardized_and_come_back(shape: tuple[int, ...]) -> None:
    y = np.random.default_rng(3).normal(100.0, 7.0, shape)
    fitted = Preprocessing.fit(Dataset(table(), y), np.arange(40), task="regression")
    found = fitted.targets(y, "float64")
    flat = y.reshape(50, -1)
    np.testing.assert_allclose(found, (flat - flat[:40].mean(axis=0)) / flat[:40].std(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(fitted.values(found), y, rtol=1e-14)
    assert fitted.values(found).shape == shape
    assert fitted.outputs == flat.shape[1]
    assert fitted.targets(y).dtype == np.float32


def test_a_constant_target_comes_back_exactly() -> None:
    y = np.full(50, 0.1)
    fitted = Preprocessing.fit(Dataset(table(), y), task="regression")
    assert not fitted.targets(y).any()
    assert fitted.values(np.zeros((50, 1))).tolist() == y.tolist()


scalings = st.sampled_from(["center", "standardize", "none", "auto"])


@settings(deadline=None)  # A busy machine is no failure.
@given(
    x=hnp.arrays("float64", st.tuples(st.integers(3, 6), st.integers(1, 4)), elements=st.floats(-1e100, 1e100)),
    labels=st.lists(st.text(max_size=5), min_size=2, max_size=3, unique=True),
    scaling=scalings,
)
def test_the_state_comes_back_bit_for_bit(x: Array, labels: list[str], scaling: str) -> None:
    # NumPy's fixed-width strings cut zeros off their end, so labels with them are equal to begin with.
    labels = [f"{label}." for label in labels]
    data = Dataset(x, [labels[i % len(labels)] for i in range(len(x))], columns=tuple(map(str, range(x.shape[1]))))
    fitted = Preprocessing.fit(data, scaling=scaling)
    check_round_trip(fitted)


def check_round_trip(fitted: Preprocessing) -> None:
    values, arrays = fitted.to_state()
    again = Preprocessing.from_state(json.loads(json.dumps(values)), {k: v.copy() for k, v in arrays.items()})
    values_again, arrays_again = again.to_state()
    assert values_again == values
    assert {k: (v.dtype, v.tobytes()) for k, v in arrays_again.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in arrays.items()
    }
    assert repr(again) == repr(fitted)


@pytest.mark.parametrize("y", [[1, 5, 1], [True, False, True], [1.0, 2.0, 2.0], np.array([2**63, 0, 1], np.uint64)])
def test_labels_of_every_kind_come_back_out_of_the_state(y: Array) -> None:
    fitted = Preprocessing.fit(Dataset(table(3), y))
    check_round_trip(fitted)
    values, arrays = fitted.to_state()
    again = Preprocessing.from_state(json.loads(json.dumps(values)), arrays)
    assert again.labels(again.targets(y)).tolist() == list(y)
    assert again.labels(again.targets(y)).dtype == np.asarray(y).dtype


def test_a_regression_s_state_and_the_split_come_back() -> None:
    data = Dataset(table(), np.linspace(0, 9, 50))
    train, valid = split_dataset(data, seed=4, task="regression")
    fitted = Preprocessing.fit(data, train[1:], valid=valid, task="regression")
    check_round_trip(fitted)
    again = Preprocessing.from_state(*fitted.to_state())
    assert again.train_indices.tolist() == train[1:].tolist()
    assert again.valid_indices.tolist() == valid.tolist()
    np.testing.assert_array_equal(again.values(np.ones((2, 1))), fitted.values(np.ones((2, 1))))


def test_a_foreign_state_is_refused() -> None:
    values, arrays = Preprocessing.fit(load_digits()).to_state()
    with pytest.raises(CheckpointError, match="preprocessing: the state has version 99, and this bnengine reads 1"):
        Preprocessing.from_state({**values, "version": 99}, arrays)
    with pytest.raises(CheckpointError, match="preprocessing: the state lacks 'scaling'"):
        Preprocessing.from_state({k: v for k, v in values.items() if k != "scaling"}, arrays)
    with pytest.raises(CheckpointError, match="preprocessing: the state lacks 'mean'"):
        Preprocessing.from_state(values, {})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.ones((2, 63)),
            r"samples must have .*\(8, 8\) \(64 features\), got \(63,\) \(63",
        ),
        (np.ones((2, 4, 16)), r"samples must have .*got \(4, 16\) \(64"),
        (np.ones(64), r"x must have an axis of samples .*got shape \(64,\)"),
        (np.ones((2, 64)) * 1j, "x must have real numbers, .*got complex128"),
        (
            np.where(np.arange(128).reshape(2, 8, 8) == 75, np.nan, 1),
            r"x, row 1, feature \(1, 3\) is nan and gives nan",
        ),
        (np.full((1, 64), 1e300), r"x, row 0, feature \(0, 0\) is 1e\+300 and gives inf in float32"),
    ],
)
def test_raw_data_that_do_not_suit_the_model_are_named(x: Array, message: str) -> None:
    fitted = Preprocessing.fit(load_digits())
    with pytest.raises(DataError, match=f"^mine: .*{message}"):
        fitted.inputs(x, name="mine")


def test_no_samples_give_no_rows() -> None:
    assert Preprocessing.fit(load_digits()).inputs(np.ones((0, 8, 8))).shape == (0, 64)


def test_real_targets_that_do_not_suit_the_model_are_named() -> None:
    fitted = Preprocessing.fit(Dataset(table(), table()[:, :2]), task="regression")
    with pytest.raises(
        DataError, match=r"mine: y must have real numbers, \(2,\) per row, .*got float64, \(3,\) per row"
    ):
        fitted.targets(np.ones((2, 3)), name="mine")
    with pytest.raises(DataError, match=r"y must .*got <U1"):
        fitted.targets(np.array([["a", "b"]]))
    with pytest.raises(DataError, match=r"mine: y, row 1 must be a finite number, got \[ 1\. nan\]"):
        fitted.targets(np.array([[1.0, 2.0], [1.0, np.nan]]), name="mine")
    with pytest.raises(InputError, match=r"predictions must have shape \(samples, 2\), got \(2, 3\)"):
        fitted.values(np.ones((2, 3)))
    with pytest.raises(InputError, match="a regression has no labels"):
        fitted.labels(np.array([0]))
    classes = Preprocessing.fit(load_digits())
    with pytest.raises(InputError, match="a classification has labels"):
        classes.values(np.ones((2, 1)))
    for wrong in (10, -1, 0.5):
        with pytest.raises(InputError, match="labels: codes must be integers from 0 to 9"):
            classes.labels(np.array([wrong]))


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (None, "classification", "there are no targets y. Training needs them"),
        ([4, 4, 4], "classification", "every training row has the label 4. A classification needs at least two"),
        ([0.1, 0.2, 0.3], "classification", r"y, row 0 must be .*got 0\.1. For real"),
        (["a", "b", "c"], "regression", "y, row 0 must be a real number for a regression, got 'a'"),
    ],
)
def test_targets_that_do_not_suit_the_task_are_named(y: Array, task: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: {message}"):
        Preprocessing.fit(Dataset(table(3), y, name="mine"), task=task)


def test_settings_and_rows_that_do_not_exist_are_named() -> None:
    data = load_digits()
    with pytest.raises(
        InputError, match="scaling must be 'auto', 'center', 'standardize', 'unit' or 'none', got 'minmax'"
    ):
        Preprocessing.fit(data, scaling="minmax")
    with pytest.raises(InputError, match="task must be 'classification' or 'regression', got 'ranking'"):
        Preprocessing.fit(data, task="ranking")
    with pytest.raises(DataError, match="digits: there are no training rows"):
        Preprocessing.fit(data, np.array([], dtype=np.int64))
    with pytest.raises(DataError, match="digits: training rows: index 1797 is outside the data's 1797 rows"):
        Preprocessing.fit(data, np.array([1797]))


def test_values_whose_squares_overflow_are_named_by_feature() -> None:
    x = np.array([[1.0, 1e200], [2.0, -1e200]])
    with pytest.raises(DataError, match="mine: x, feature 1: the values are too large for a variance in float64"):
        Preprocessing.fit(Dataset(x, [0, 1], name="mine"))


def test_subnormal_features_count_as_constant() -> None:
    x = np.array([[5e-324, 0.0], [0.0, 1.0], [1e-310, 2.0]])
    found = Preprocessing.fit(Dataset(x, [0, 1, 0])).inputs(x)
    assert found[:, 0].tolist() == [0, 0, 0]
    assert np.isfinite(found).all()


def test_columns_come_in_the_order_of_training_by_their_names() -> None:
    x = table(3, 2)
    fitted = Preprocessing.fit(Dataset(x, [0, 1, 0], columns=("a", "b"), target="kind"))
    assert fitted.target == "kind"
    other = Dataset(x[:, ::-1], columns=("b", "a"))
    np.testing.assert_array_equal(fitted.aligned(other).x, x)
    assert fitted.aligned(other).columns == ("a", "b")
    nameless = Dataset(x)
    assert fitted.aligned(nameless) is nameless
    with pytest.raises(DataError, match=r"mine: the columns differ .* missing \['b'\], unknown \['c'\]"):
        fitted.aligned(Dataset(x, columns=("a", "c"), name="mine"))
    with pytest.raises(DataError, match="x, row 0, feature 'b' is nan"):
        fitted.inputs(np.array([[1.0, np.nan]]))


# -- data and models that fit ------------------------------------------------------------------------------------------


class Frame:
    """As much of a DataFrame as is used: named columns, rows by a slice, columns by a list, an array."""

    def __init__(self, values, columns):
        self.values, self.columns = np.asarray(values), list(columns)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        if isinstance(key, list):
            return Frame(self.values[:, [self.columns.index(name) for name in key]], key)
        return Frame(self.values[key], self.columns)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_columns_of_a_frame_go_by_their_names(rng):
    x, labels = rng.standard_normal((40, 3)), np.asarray(["low", "high"])[rng.integers(0, 2, 40)]
    frame = Frame(x, "abc")
    made = Preprocessing.fit(Dataset(frame, labels))
    assert made.columns == ("a", "b", "c")
    network = bn.Sequential(bn.Dense(3, 2), backend="numpy")
    network.preprocessing = made
    expected = bn.predict(network, x).probabilities
    np.testing.assert_array_equal(bn.predict(network, frame[["c", "a", "b"]], batch_size=7).probabilities, expected)
    np.testing.assert_array_equal(bn.predict(network, frame).probabilities, expected)
    with pytest.raises(DataError, match=r"predict: the columns differ .*missing \['c'\], unknown \['x'\]"):
        bn.predict(network, Frame(x, "abx"))


def source(x, labels, **options):
    return bn.ArraySource(x, labels, preprocessing=Preprocessing.fit(Dataset(x, labels), **options))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": "abx"}, "the classes must be 'a', 'b', 'c', as of the model, got 'a', 'b', 'x'"),
        ({"labels": "ab"}, "the classes must be 'a', 'b', 'c', as of the model, got 'a', 'b'"),
        ({"factor": 2.0}, "data must be scaled as .* got another (mean|inv_scale) of feature 0"),
        ({"scaling": "center"}, "scaling must be 'standardize', as of the model, got 'center'"),
        ({"shape": (2, 2)}, r"input_shape must be \[4\], as of the model, got \[2, 2\]"),
    ],
)
def test_data_prepared_in_another_way_are_refused(rng, change, text):
    x, codes = rng.standard_normal((60, 4)).astype(np.float32), np.arange(60) % 3
    first = source(x, np.asarray(list("abc"))[codes])
    names = np.asarray(list(change.get("labels", "abc")))
    scaling = {"scaling": change.get("scaling", "standardize")}
    others = x.reshape(60, *change.get("shape", (4,))) * np.float32(change.get("factor", 1.0))
    other = source(others, names[codes % len(names)], **scaling)
    network = bn.Sequential(bn.Dense(4, 3), backend="numpy")
    trainer = bn.Trainer(network, progress="quiet")
    with pytest.raises(InputError, match=f"^fit: validation: {text}.* Give them the model's preprocessing"):
        trainer.fit(first, epochs=1, validation=other)
    trainer.fit(first, epochs=1, validation=first)
    for call in (lambda: trainer.fit(other, epochs=2), lambda: bn.Trainer(network).fit(other, epochs=1)):
        with pytest.raises(InputError, match=f"^fit: {text}.*or set that to None to train for other data"):
            call()
    with pytest.raises(InputError, match=f"^evaluate: {text}"):
        trainer.evaluate(other)
    values, arrays = first.preprocessing.to_state()
    first.preprocessing.check_same(Preprocessing.from_state(values, arrays), "", "")
