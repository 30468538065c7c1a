"""Losses: what they take, what they divide by, their values worked out apart; the ops themselves are tested in ops."""

import json

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.losses import (
    LOSSES,
    BinaryCrossEntropy,
    LossFunction,
    MeanSquaredError,
    SoftmaxCrossEntropy,
    class_weights,
    get_loss,
)


def mean(loss, output, y, weights=None):
    """The loss of a batch as a step takes it."""
    outputs = output.shape[-1]
    target = loss.targets(y, outputs)
    total = np.asarray([loss.total(target, weights, outputs)])
    constants = loss.constants(outputs)
    value, gradient = loss(output, target, loss.weights(weights, target), constants, total)
    assert value.shape == (1,)
    return float(value[0]), gradient


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# -- softmax cross-entropy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.2)])
@pytest.mark.parametrize("class_weights", [None, (1.0, 0.0, 3.0)])
@pytest.mark.parametrize("soft", [False, True])
def test_softmax_cross_entropy_by_its_definition(rng, weighted, smoothing, class_weights, soft):
    x = rng.standard_normal((6, 3)) * 2
    y = rng.dirichlet(np.ones(3), 6) if soft else np.asarray([0, 1, 2, 2, 0, 2])
    v = rng.random(6) if weighted else np.ones(6)
    c = np.ones(3) if class_weights is None else np.asarray(class_weights)
    t = y if soft else np.eye(3)[y]
    rows = -(c * ((1 - smoothing) * t + smoothing / 3) * log_softmax(x)).sum(1)
    divisor = v.sum() if soft else (v * c[y]).sum()
    loss = SoftmaxCrossEntropy(label_smoothing=smoothing, class_weights=class_weights)
    value, _ = mean(loss, x, y, v if weighted else None)
    assert value == pytest.approx((v * rows).sum() / divisor, rel=1e-13)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        ([0, 3], r"targets for 3 outputs must be 0 to 2, got 0 to 3. Give the last layer more outputs"),
        ([-1, 0], r"targets for 3 outputs must be 0 to 2, got -1 to 0"),
        (np.asarray([True, False]), r"targets must be integer classes, or .* all 3 classes, got bool of shape \(2,\)"),
        (np.asarray(["a"]), r"targets must be .*got <U1"),
        (np.asarray([0.0, 1.0]), r"targets must be .*got float64 of shape \(2,\)"),
        (np.ones((2, 4)), r"targets must be .*got float64 of shape \(2, 4\)"),
        (None, r"targets must be .*got object"),
    ],
)
def test_targets_that_softmax_cannot_use_are_errors(y, text):
    with pytest.raises(InputError, match=rf"^SoftmaxCrossEntropy: {text}"):
        SoftmaxCrossEntropy().targets(y, 3)


def test_usable_targets_of_softmax():
    targets = SoftmaxCrossEntropy().targets
    for dtype in (np.int64, np.uint8, np.int8):
        assert (targets(np.asarray([0, 2], dtype), 3).dtype, targets([0, 2], 3).tolist()) == (np.int64, [0, 2])
    assert targets(np.zeros(0, np.int64), 3).shape == (0,)
    assert targets(np.full((2, 3), 0.33, np.float32), 3).dtype == np.float32


@pytest.mark.parametrize(
    ("y", "outputs", "text"),
    [
        ([25.0, 346.0], 1, "an output per class, got 1 output.*loss='mean_squared_error' for a regression"),
        ([0, 1], 1, "an output per class, got 1 output.*loss='binary_cross_entropy' for two classes"),
        ([[0.5, 0.5], [-0.5, 1.5]], 2, r"probabilities, at least 0 and 1 in total, got \[-0.5,  1.5\]"),
        ([[0.5, 0.5], [1.0, 1.0]], 2, r"1 in total, got \[1., 1.\].*'binary_cross_entropy' for several labels"),
        ([[np.nan, 1.0]], 2, "1 in total, got .*nan"),
    ],
)
def test_targets_that_are_no_classes_and_no_probabilities(y, outputs, text):
    with pytest.raises(InputError, match=f"^SoftmaxCrossEntropy: .*{text}"):
        SoftmaxCrossEntropy().targets(np.asarray(y), outputs)


def test_what_it_divides_by():
    loss, weighted = SoftmaxCrossEntropy(), SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 4.0))
    codes, soft, v = np.asarray([0, 1, 2]), np.ones((3, 3)) / 3, np.asarray([1.0, 0.5, 0.25])
    assert [loss.total(codes, None, 3), loss.total(codes, v, 3), loss.total(soft, None, 3), loss.total(soft, v, 3)] == [
        3, 1.75, 3, 1.75,
    ]  # fmt: skip
    assert [weighted.total(codes, None, 3), weighted.total(codes, v, 3)] == [7.0, 3.0]
    assert [weighted.total(soft, None, 3), weighted.total(soft, v, 3)] == [3.0, 1.75]
    image = np.asarray([[0, 1], [2, 2], [0, 0]])
    assert [loss.total(image, None, 3), loss.total(image, v, 3), weighted.total(image, v, 3)] == [6, 3.5, 3 + 4 + 0.5]


@pytest.mark.parametrize(
    ("weights", "classes", "expected"),
    [
        ({2: 2.0, 0: 5.0, 1: 1.0}, None, (5.0, 1.0, 2.0)),
        ({"dog": 2, "cat": 5}, ["cat", "dog"], (5.0, 2.0)),
        (np.asarray([5, 2]), ["cat", "dog"], (5.0, 2.0)),
        # 6 rows: 6 / (2 * 4) and 6 / (2 * 2), as compute_class_weight of scikit-learn has them
        ("balanced", ["cat", "dog"], (0.75, 1.5)),
    ],
)
def test_weights_go_to_their_classes(weights, classes, expected):
    y = np.asarray(["dog", "cat", "cat", "dog", "cat", "cat"])
    assert class_weights(weights, classes, y) == expected


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({1: 1.0, 2: 2.0}, r"the keys of class_weights must be the classes 0, 1, got missing \[0\], unknown \[2\]"),
        ({"cat": 1.0}, r"the keys of class_weights must be the classes 0, got missing \[0\], unknown \['cat'\]"),
        ({5.0, 1.0}, "class_weights must be numbers in the order of the classes, or a mapping"),
        (3.0, "class_weights must be numbers in the order of the classes, or a mapping"),
        ("balanced", "class_weights as a text must be 'balanced', got it without the labels y. Call class_weights"),
        ("even", "class_weights as a text must be 'balanced', got 'even'"),
        ({0: 1.0, 1: "2"}, r"class_weights\[1\] must be a finite number"),
    ],
)
def test_weights_that_may_go_to_other_classes_are_refused(weights, text):
    with pytest.raises(InputError, match=f"^SoftmaxCrossEntropy: {text}"):
        SoftmaxCrossEntropy(class_weights=weights)


def test_class_weights_are_one_for_each_output_and_weigh_something():
    for weights in ((), (0.0, 0.0), (-1.0, 2.0), (float("inf"), 1.0), (float("nan"), 1.0)):
        text = r"^SoftmaxCrossEntropy: (class_weights\[0\]|at least one of class_weights) must"
        with pytest.raises(InputError, match=text):
            SoftmaxCrossEntropy(class_weights=weights)
    with pytest.raises(InputError, match=r"^SoftmaxCrossEntropy: class_weights must be one per output \(3\), got 2"):
        SoftmaxCrossEntropy(class_weights=(1, 2)).constants(3)
    np.testing.assert_array_equal(SoftmaxCrossEntropy(class_weights=[1, 2]).constants(2), [1.0, 2.0])
    assert SoftmaxCrossEntropy().constants(3) is None


# -- losses of numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5, 2, 3)])
def test_losses_of_numbers_by_their_definitions(rng, weighted, shape):
    x, y, v = rng.standard_normal(shape), rng.random(shape), rng.random(5)
    q = 1 / (1 + np.exp(-x))
    for loss, each in (
        (MeanSquaredError(), (x - y) ** 2),
        (BinaryCrossEntropy(), -(y * np.log(q) + (1 - y) * np.log(1 - q))),
    ):
        rows = each.reshape(5, -1).mean(1)
        value, gradient = mean(loss, x, y, v if weighted else None)
        assert value == pytest.approx((v * rows).sum() / v.sum() if weighted else rows.mean(), rel=1e-13)
        assert gradient.shape == x.shape


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()], ids=lambda o: o.name)
def test_targets_of_one_output_may_be_flat(loss):
    for y in ([0, 1, 1], np.asarray([False, True, True]), np.asarray([0, 1, 1], np.uint8)):
        targets = loss.targets(y, 1)
        assert (targets.dtype, targets.tolist()) == (np.float64, [[0.0], [1.0], [1.0]])
    assert loss.targets(np.zeros((2, 3), np.float32), 3).dtype == np.float32
    assert loss.targets(np.zeros((0, 3)), 3).shape == (0, 3)


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()], ids=lambda o: o.name)
@pytest.mark.parametrize(
    ("y", "outputs", "text"),
    [
        (np.zeros(3), 2, r"targets must be numbers of shape \(rows, 2\), got float64 of shape \(3,\)"),
        (np.zeros((3, 2)), 1, r"targets must be numbers of shape \(rows, 1\), got float64 of shape \(3, 2\)"),
        (np.asarray(["a", "b"]), 1, "targets must be .*got <U1"),
        (np.asarray(1.0), 1, r"targets must be .*got float64 of shape \(\)"),
    ],
)
def test_targets_that_are_no_numbers_of_the_outputs_are_errors(loss, y, outputs, text):
    with pytest.raises(InputError, match=rf"^{type(loss).__name__}: {text}"):
        loss.targets(y, outputs)


def test_binary_targets_lie_between_0_and_1_and_weights_are_one_a_sample():
    for y in ([-0.1, 1.0], [0.0, 1.1], [0.0, float("nan")]):
        with pytest.raises(InputError, match=r"^BinaryCrossEntropy: targets must be in \[0, 1\], got .* to "):
            BinaryCrossEntropy().targets(y, 1)
    for weights in (np.ones(2), np.ones((3, 1)), 1.0):
        for loss, y in ((SoftmaxCrossEntropy(), np.asarray([0, 1, 1])), (MeanSquaredError(), np.zeros((3, 2)))):
            text = rf"^{type(loss).__name__}: weights must be one per sample, \(3,\), got shape"
            with pytest.raises(InputError, match=text):
                loss.weights(weights, loss.targets(y, 2))


# -- by name -----------------------------------------------------------------------------------------------------------


def test_names_and_tasks():
    assert {name: cls.task for name, cls in LOSSES.items()} == {
        "softmax_cross_entropy": "classification", "binary_cross_entropy": "classification",
        "mean_squared_error": "regression",
    }  # fmt: skip
    for name, cls in LOSSES.items():
        assert get_loss(name) == cls()
        assert issubclass(cls, LossFunction)
    for loss in (SoftmaxCrossEntropy(0.1, (1.0, 2.5)), *(cls() for cls in LOSSES.values())):
        assert get_loss(json.loads(json.dumps(loss.config()))) == loss
        assert get_loss(loss) is loss
    with pytest.raises(InputError, match=r"^loss: name must be 'softmax_cross_entropy', .*, got 'hinge'"):
        get_loss("hinge")
    with pytest.raises(InputError, match=r"^loss: mean_squared_error has no option 'delta'. It takes none"):
        get_loss({"name": "mean_squared_error", "delta": 1})
    with pytest.raises(
        InputError, match=r"^loss: softmax_cross_entropy has no option 'smooth'. It takes label_smoothing, class"
    ):
        get_loss({"name": "softmax_cross_entropy", "smooth": 1})
