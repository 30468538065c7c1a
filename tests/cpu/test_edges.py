"""Every op at the edges of shapes and numbers: one row, one column, odd widths; NaN, infinity, subnormal numbers."""

import numpy as np
import pytest

from bnengine.fused.cpu.native import replayer
from bnengine.ops import REGISTRY, Example
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena
from tests.cpu.large import LOSSES, flat, outputs, softmax
from tests.cpu.launching import LAUNCHERS, NAMES, OF_ROWS, assert_exact, assert_same_bits, examples, of_rows, run
from tests.cuda_on_cpu.cases import fields
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT

pytestmark = pytest.mark.usefixtures("native")

storages = pytest.mark.parametrize("storage", [FLOAT, DOUBLE], ids=lambda s: s.name)
shapes = pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 65), (2, 1), (2, 129), (3, 7)], ids=str)


def shaped(name, shape, dtype):
    """Examples of an op with so many rows and columns, or elements."""
    rng, (rows, width) = np.random.default_rng(shape), shape
    if name == "gather_raw":
        given = of_rows("gather", rows, width, dtype) if rows > 1 else only_row(width, dtype)
        for kind in (np.int16, np.float64):
            x, target, weights, _, *rest = given.args
            moved = x.astype(kind), target, weights, rng.permutation(rows), *rest, rng.random(width), rng.random(width)
            yield given._replace(args=moved)
    elif name in OF_ROWS:
        yield of_rows(name, rows, width, dtype) if name != "gather" or rows > 1 else only_row(width, dtype)
    elif name in ("softmax_cross_entropy", "correct"):
        for kind in ("numbers", "probabilities"):
            example = softmax(rng, rows, width, dtype, kind)
            yield example if name != "correct" else Example(kind, example.args)
    elif name in LOSSES:
        yield outputs(rng, rows, width, dtype)
    elif name in RULES:
        size = rows * width
        example = flat(rng, name, size, dtype)._replace(options={"decay_end": size // 2, "weight_decay": 0.1})
        yield example
    elif name == "check_step":
        gradients, pending = rng.standard_normal(rows * width).astype(dtype), rng.random((rows, 3, width))
        yield Example("", (np.ones(1, dtype), gradients, pending), {"clip": 0.5})
    elif name == "average":
        a, b = rng.standard_normal((2, rows * width))
        yield Example("", (a, b, np.asarray([True])), {"decay": 0.9})
    elif name in ("commit", "merge"):
        a, b = (np.abs(rng.standard_normal((3, width))) + 1 for _ in range(2))
        decay, unbiased = rng.random(width), rng.random(width) > 0.5
        yield Example("", (a, b) if name == "merge" else (a, b, np.asarray([True]), decay, unbiased))


def only_row(width, dtype):
    rng = np.random.default_rng(width)
    x, y, weights = rng.standard_normal((1, width)).astype(dtype), np.asarray([3]), np.ones(1, dtype)
    return Example(
        "", (x, y, weights, np.asarray([9]), weights, np.zeros(1, np.int64), np.zeros(2, np.int64)), {"rows": 1}
    )


SHAPED = [name for name in NAMES if list(shaped(name, (3, 5), np.float32))]


def test_all_ops_with_arrays_of_any_size_are_here():
    assert set(LAUNCHERS) - set(SHAPED) == {"count_step", "add_epoch_sums"}  # counters and sums, whose sizes are fixed


@storages
@shapes
@pytest.mark.parametrize("name", SHAPED)
def test_a_row_or_a_column_alone_and_odd_widths(name, shape, storage):
    for example in shaped(name, shape, storage.dtype.type):
        got, arena = assert_exact(name, example, storage), Arena()
        with arena.recording([a for a in example.args if a is not None]) as plan:
            planned = run(name, example, memory=arena)
        replay = replayer(plan)
        assert not isinstance(replay, str), replay
        replay()
        assert_same_bits(planned, got, f"{name} {shape}")


# -- numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", sorted({*NAMES} - {"count_step"}))  # which has no such numbers
def test_what_is_not_finite_comes_out_where_it_does_in_the_reference(name, value):
    """One at a time, in each array of numbers of each example."""
    op, seen = REGISTRY[name], 0
    for example in examples(name):
        for i, given in enumerate(example.args):
            if given is None or given.dtype.kind != "f" or not given.size or not np.isfinite(given).all():
                continue
            spoiled = given.copy()
            spoiled.flat[given.size // 2] = value
            args = (*example.args[:i], spoiled, *example.args[i + 1 :])
            with np.errstate(all="ignore"):
                expected = fields(op, op.reference(*args, **example.options))
            got = run(name, example._replace(args=args))
            for field, other in expected.items():
                if other is not None:
                    what = f"{name}, {example.label}, argument {i}, {field}"
                    assert_alike(got[field], other, what, moments=field in ("batch", "pending"))
            seen += 1
    assert seen


def assert_alike(got, expected, what, *, moments):
    """`moments`: whether those of infinities are infinite or NaN depends on the order of the sum."""
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected), err_msg=what)
    if not moments:
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), err_msg=what)
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(got[infinite], expected[infinite], err_msg=what)


def subnormal(rng, *shape, dtype):
    """Numbers between the smallest there is and the smallest normal one, of both signs."""
    steps = rng.integers(1, 2**22, shape) * rng.choice([-1, 1], shape)
    return (steps * np.finfo(dtype).smallest_subnormal).astype(dtype)


@storages
def test_subnormal_numbers_are_neither_flushed_nor_rounded(storage, rng):
    """Where a result is exact, it is that to the last bit."""
    dtype = storage.dtype.type
    x, y = (subnormal(rng, 37, 21, dtype=dtype) for _ in range(2))
    identity, ones, zeros = np.eye(21, dtype=dtype), np.ones((37, 21), bool), np.zeros(21, dtype)
    samples = np.arange(37)
    exact = {
        "total": ((x, y), {}, x + y),
        "activation": ((x,), {"kind": "relu"}, np.where(x < 0, 0, x)),
        "activation_backward": ((x, y, np.abs(y)), {"kind": "relu"}, x),
        "affine": ((x, identity, zeros), {}, x),
        "dropout_backward": ((x, ones), {"rate": 0.5}, 2 * x),
        "dropout": ((x, np.asarray([1]), samples), {"seed": 1, "layer": 0, "rate": 0.0}, x),
        "gather": ((x, y, None, samples, x[0], samples, np.asarray([0, 3])), {"rows": 37}, x),
        "average": ((x.astype(np.float64), -x.astype(np.float64), np.asarray([True])), {"decay": 0.5}, 0 * x),
    }
    for name, (args, options, expected) in exact.items():
        (got, *_) = run(name, Example("subnormal", args, options)).values()
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert np.count_nonzero(got) == np.count_nonzero(expected), name
    assert (np.abs(x) > 0).all()
    assert (np.abs(x) < np.finfo(dtype).tiny).all()


@storages
def test_subnormal_gradients_move_parameters(storage, rng):
    dtype = storage.dtype.type
    p, g = (subnormal(rng, 100, dtype=dtype) for _ in range(2))
    control = np.ones((1, 1), dtype), np.zeros(5, np.int64), np.asarray([True]), np.ones(1, dtype)
    got = run("sgd", Example("subnormal", (p, g, None, *control), {"decay_end": 0}))["parameters"]
    np.testing.assert_array_equal(got, p - g)
    assert np.count_nonzero(got) > 90
