"""The loss kernels: value and gradient of a pass, and the rows classified right."""

from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY, Example
from tests.cuda_on_cpu.cases import PATHS, PATHS_WITH_SPLITS, Case, assert_within, cases, label
from tests.cuda_on_cpu.instances import BLOCK, LOSSES, WARP, kernel
from tests.cuda_on_cpu.launch import Destination, Launch, Path, arrivals, simulate, unwritten
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT

paths = pytest.mark.parametrize("path", PATHS_WITH_SPLITS, ids=label)


def target_type(path: Path, target: np.ndarray) -> str:
    return "long long" if target.dtype.kind == "i" else path.storage.wide_name


def divisor_in(path: Path, divisor: Any) -> np.ndarray:
    return np.asarray(divisor, path.storage.arithmetic).reshape(1)


def scratch(path: Path) -> tuple[Any, Any]:
    return unwritten(path.splits, "f8"), arrivals()


def softmax(
    path: Path, logits: Any, target: Any, class_weights: Any = None, sample_weights: Any = None, *,
    divisor: Any, label_smoothing: float = 0.0, scale: Any = None, group: int = WARP,
    value: Destination | None = None,
) -> list[Any]:  # fmt: skip
    """(value, dlogits)."""
    name, classes = path.storage.name, logits.shape[-1]
    into = value or Destination(unwritten(1, path.storage.arithmetic))
    launch = Launch(
        kernel("loss.cu", "softmax_cross_entropy", name, path.vector, group, target_type(path, target)), (path.splits,),
        (class_weights, divisor_in(path, divisor), scale), (logits, target, sample_weights),
        (into.array, unwritten(logits.shape, logits.dtype)), scratch(path),
        (logits.size // classes, classes, label_smoothing, into.adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


def elementwise(
    name: str, path: Path, prediction: Any, target: Any, sample_weights: Any = None, *,
    divisor: Any, scale: Any = None, value: Destination | None = None,
) -> list[Any]:  # fmt: skip
    """(value, gradient)."""
    outputs = prediction.shape[-1]
    into = value or Destination(unwritten(1, path.storage.arithmetic))
    launch = Launch(
        kernel("loss.cu", "elementwise_loss", *path.which, f"bnengine::{LOSSES[name]}"), (path.splits,),
        (divisor_in(path, divisor), scale), (prediction, target, sample_weights),
        (into.array, unwritten(prediction.shape, prediction.dtype)), scratch(path),
        (prediction.size // outputs, outputs, into.adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


def correct(path: Path, output: Any, target: Any, before: Destination | None = None) -> np.ndarray:
    classes = output.shape[-1]
    into = before or Destination(unwritten(1, "f8"))
    launch = Launch(
        kernel("loss.cu", "correct", path.storage.name, target_type(path, target)), (path.splits,), (),
        (output, target), (into.array,), scratch(path), (output.size // classes, classes, into.adds),
    )  # fmt: skip
    return simulate(launch, path.offset)[0]


@paths
@pytest.mark.parametrize("group", [WARP, BLOCK])
def test_softmax_cross_entropy_is_within_the_bound_of_the_op(path, group):
    for case in cases("softmax_cross_entropy", path):
        if case.given[0].shape[-1] % path.vector == 0:
            value, dlogits = softmax(path, *case.given, **case.options, group=group)
            case.check("value", value)
            case.check("dlogits", dlogits, stored=True)


@paths
@pytest.mark.parametrize("classes", [8, 64, 1000, 1400])
def test_rows_of_few_and_many_classes_are_within_the_bound(path, classes, rng):
    storage, rows = path.storage, 11 if classes < 1000 else 3
    logits = rng.standard_normal((rows, classes)) * 3
    logits[0, 1:4] = -np.inf, 60.0, -60.0
    codes, probabilities = rng.integers(0, classes, rows), rng.dirichlet(np.ones(classes), rows)
    codes[0], probabilities[0, 1] = 0, 0
    weights = [rng.random(n).astype(storage.arithmetic) for n in (classes, rows)]
    narrow = storage.arithmetic
    for target in (codes, probabilities.astype(narrow)):
        for given, smoothing in (((), 0.0), (weights, 0.0), (weights, 0.1)):
            if smoothing:
                logits[0, 1] = -50.0
            args = (logits.astype(narrow), target, *given)
            case = Case(
                "softmax_cross_entropy", path,
                Example(f"{classes} classes", args, {"divisor": float(rows), "label_smoothing": smoothing}),
            )  # fmt: skip
            finite = np.where(np.isfinite(case.wide[0]), case.wide[0], 0)
            bound = case.op.contract.bound(storage.unit, finite, *case.wide[1:], **case.options)
            case.bound = bound._asdict()
            group = WARP if classes <= 64 else BLOCK
            value, dlogits = softmax(path, *case.given, **case.options, group=group)
            assert np.isfinite(value).all()
            case.check("value", value)
            case.check("dlogits", dlogits, stored=True)


@pytest.mark.parametrize("group", [WARP, BLOCK])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_spoils_its_row_and_the_value(bad, group, rng):
    logits = rng.standard_normal((5, 8)).astype(np.float32)
    logits[3, 6] = bad
    for k in (0, 6):
        value, dlogits = softmax(Path(FLOAT, 4, 2), logits, np.full(5, k), divisor=5, group=group)
        assert np.isnan(value).all()
        assert np.isnan(dlogits[3]).all()
        assert np.isfinite(np.delete(dlogits, 3, axis=0)).all()


@paths
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_single_outputs_is_within_the_bound_of_the_op(name, path):
    for case in cases(name, path):
        value, gradient = elementwise(name, path, *case.given, **case.options)
        case.check("value", value)
        case.check("dlogits", gradient, stored=True)


@pytest.mark.parametrize("path", [Path(FLOAT, 4, 2), Path(DOUBLE, 1, 1)], ids=label)
def test_a_value_is_added_to_its_destination_and_gradients_are_not(path, rng):
    x, t = (rng.random((9, 4)).astype(path.storage.arithmetic) for _ in range(2))
    before = rng.random(1).astype(path.storage.arithmetic)
    functions = {name: lambda *a, n=name, **k: elementwise(n, *a, **k) for name in LOSSES}
    for function in (softmax, *functions.values()):
        plain, gradient = function(path, x, t, divisor=9)
        for adds in (False, True):
            value, same = function(path, x, t, divisor=9, value=Destination(before, adds))
            np.testing.assert_array_equal(value, plain + before if adds else plain)
            assert same.tobytes() == gradient.tobytes()


def test_the_mean_over_many_rows_is_summed_in_double(rng):
    x, t = (rng.standard_normal((30001, 1)).astype(np.float32) for _ in range(2))
    value, _ = elementwise("mean_squared_error", Path(FLOAT, 4, 3), x, t, divisor=30001.0)
    expected = REGISTRY["mean_squared_error"].reference(x.astype("f8"), t.astype("f8"), divisor=30001.0).value
    assert_within(value, expected, 4 * FLOAT.unit * expected, "value")


@pytest.mark.parametrize("path", [p._replace(splits=2) for p in PATHS if p.vector == 1], ids=label)
def test_hits_are_those_of_the_op(path):
    for case in cases("correct", path):
        expected = REGISTRY["correct"].reference(*case.wide)
        for adds in (False, True):
            got = correct(path, *case.given, Destination(np.full(1, 5.0), adds))
            np.testing.assert_array_equal(got, expected + 5 if adds else expected)


def test_hits_take_the_first_of_equals_and_no_row_with_a_nan(rng):
    output = rng.integers(0, 3, (200, 70)).astype(np.float32)
    output[::7, 69] = np.nan
    codes = np.argmax(output, axis=1)
    codes[::3] += 1
    for target in (codes, rng.integers(0, 3, (200, 70)).astype(np.float32)):
        expected = REGISTRY["correct"].reference(output, target)
        np.testing.assert_array_equal(correct(Path(FLOAT, 1, 3), output, target), expected)
