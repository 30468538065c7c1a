"""The kernels that go element by element: activations, sums, casts, dropout, and bias."""

from typing import Any

import numpy as np
import pytest

from bnengine.arrays.random import keep_mask, philox, split_seed
from bnengine.ops import REGISTRY, Example
from bnengine.ops.activations import ACTIVATIONS
from tests.activations import ORACLES
from tests.cuda_on_cpu.cases import PATHS, PATHS_WITH_SPLITS, Case, assert_within, cases, label
from tests.cuda_on_cpu.instances import CASTS, kernel
from tests.cuda_on_cpu.launch import Destination, Launch, Path, arrivals, enumerator, simulate, slices, unwritten
from tests.cuda_on_cpu.storage import FLOAT

paths = pytest.mark.parametrize("path", PATHS, ids=label)


def elementwise(
    path: Path, file: str, name: str, reads: Any, scalars: Any, kind: str | None = None,
    into: Destination | None = None, adding: bool = True,
) -> np.ndarray:  # fmt: skip
    """The one output of a kernel over flat arrays, like the first of `reads`; `adding`: it may add to a destination."""
    x = reads[0]
    into = into or Destination(unwritten(x.shape, x.dtype))
    which = (*path.which, *(() if kind is None else (enumerator(kind),)))
    flag = (into.adds,) if adding else ()
    launch = Launch(kernel(file, name, *which), (path.splits,), (), reads, (into.array,), (), (x.size, *scalars, *flag))
    return simulate(launch, path.offset)[0]


@paths
def test_activations_are_within_the_bound_of_the_op(path):
    for case in cases("activation", path):
        options = dict(case.options)
        kind = options.pop("kind")
        got = elementwise(path, "pointwise.cu", "activation", case.given, (options["slope"],), kind, adding=False)
        case.check("out", got, stored=True)


@paths
def test_derivatives_of_activations_are_within_the_bound_of_the_op(path):
    for case in cases("activation_backward", path):
        kind, slope = case.options["kind"], case.options["slope"]
        got = elementwise(path, "pointwise.cu", "activation_backward", tuple(case.given), (slope,), kind)
        case.check("out", got, stored=True)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_nan_and_infinity_pass_an_activation_as_they_pass_the_reference(kind):
    x = np.asarray([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 3e38, -3e38], np.float32)
    dy = np.ones_like(x)
    path, slope = Path(FLOAT, 4), ORACLES[kind].slope
    with np.errstate(all="ignore"):
        y = REGISTRY["activation"].reference(x, kind=kind)
        dx = REGISTRY["activation_backward"].reference(dy, x, y, kind=kind)
    got = elementwise(path, "pointwise.cu", "activation", (x,), (slope,), kind, adding=False)
    np.testing.assert_allclose(got, y, rtol=1e-6)
    got = elementwise(path, "pointwise.cu", "activation_backward", (dy, x, y), (slope,), kind)
    np.testing.assert_allclose(got, dx, rtol=1e-6)


@paths
def test_a_total_is_within_the_bound_of_the_op(path):
    for case in cases("total", path):
        case.check("out", elementwise(path, "pointwise.cu", "total", tuple(case.given), ()), stored=True)


@paths
def test_what_may_add_to_a_destination_does(path, rng):
    a, b, before = (path.storage.of(rng.standard_normal(103)) for _ in range(3))
    keep = rng.random(103) < 0.5
    launches = (
        ("pointwise.cu", "total", (a, b), (), None),
        ("pointwise.cu", "activation_backward", (a, b, b), (0.01,), "relu"),
        ("dropout.cu", "dropout_backward", (a, keep), (0.5,), None),
    )
    for file, name, reads, scalars, kind in launches:
        plain = path.storage.wide(elementwise(path, file, name, reads, scalars, kind))
        into = Destination(before, adds=True)
        got = path.storage.wide(elementwise(path, file, name, reads, scalars, kind, into))
        expected = plain + path.storage.wide(before)
        allowed = path.storage.rounding(expected) + path.storage.rounding(plain) + path.storage.unit * np.abs(expected)
        assert_within(got, expected, allowed, name)


@pytest.mark.parametrize("size", [1, 7, 8, 4099])
@pytest.mark.parametrize(("source", "target"), CASTS, ids=lambda s: s.name)
def test_a_cast_rounds_to_nearest(source, target, size, rng):
    x = source.of(rng.standard_normal(size) * 10.0 ** rng.uniform(-9, 6, size))
    x[:1] = source.of(np.asarray([np.nan]))
    expected = target.of(source.wide(x))
    for vector in (max(source.vector, target.vector), 1):
        run = kernel("pointwise.cu", "cast", source.name, target.name, vector)
        (got,) = simulate(Launch(run, (2,), (), (x,), (unwritten(size, target.dtype),), (), (size,)), int(vector == 1))
        np.testing.assert_array_equal(target.wide(got), target.wide(expected))


# -- dropout


def dropout(path: Path, x: Any, step: Any, samples: Any, *, seed: int, layer: int, rate: float) -> list[Any]:
    """(out, keep)."""
    features = x.size // len(x)
    vector = 4 if path.vector > 1 and features % 4 == 0 else 1
    run = kernel("dropout.cu", "dropout", path.storage.name, vector)
    scalars = (len(x), features, *split_seed(seed), layer, round(rate * 2**32), rate)
    writes = (unwritten(x.shape, x.dtype), unwritten(x.shape, bool))
    return simulate(Launch(run, (path.splits,), (step,), (x, samples), writes, (), scalars), path.offset)


@pytest.mark.parametrize("path", PATHS_WITH_SPLITS, ids=label)
def test_dropout_is_within_the_bound_of_the_op_and_keeps_the_same(path):
    for case in cases("dropout", path):
        out, keep = dropout(path, *case.given, **case.options)
        case.check("out", out, stored=True)
        np.testing.assert_array_equal(keep, case.expected["keep"])


@pytest.mark.parametrize("features", [1, 2, 3, 5, 8, 130])
def test_dropout_s_bits_are_those_of_every_other_library(features, rng):
    samples = rng.integers(0, 2**32, 37)
    options = {"seed": 2**64 - 5, "layer": 2**31 - 1, "rate": 0.7}
    step = np.asarray([2**32 - 1])
    expected = keep_mask(np, step=step, samples=samples, features=features, **options)
    x = np.ones((37, features), np.float32)
    for path in (Path(FLOAT, 4, 2), Path(FLOAT, 1, 2, 1)):
        np.testing.assert_array_equal(dropout(path, x, step, samples, **options)[1], expected)


def test_a_word_at_the_threshold_is_kept():
    word = int(philox((0, 7, 3, 1), (5, 0))[2])
    x, step, samples = np.ones((1, 4), np.float32), np.asarray([3]), np.asarray([7])
    _, keep = dropout(Path(FLOAT, 4), x, step, samples, seed=5, layer=1, rate=word / 2**32)
    assert keep[0, 2]
    _, keep = dropout(Path(FLOAT, 4), x, step, samples, seed=5, layer=1, rate=(word + 1) / 2**32)
    assert not keep[0, 2]


@paths
def test_dropout_s_way_back_is_within_the_bound_of_the_op(path):
    for case in cases("dropout_backward", path):
        got = elementwise(path, "dropout.cu", "dropout_backward", tuple(case.given), (case.options["rate"],))
        case.check("out", got, stored=True)


# -- bias and activation


def bias_activation_backward(
    path: Path, dy: Any, y: Any, *, activation: str = "identity", slope: float = 0.01,
    db: Destination | None = None, with_dz: bool = True, with_db: bool = True,
) -> list[Any]:  # fmt: skip
    """(dz, db)."""
    outputs = dy.shape[-1]
    grid = slices(path, outputs), path.splits
    into = db or Destination(unwritten(outputs, path.storage.arithmetic))
    launch = Launch(
        kernel("dense.cu", "bias_activation_backward", *path.which, enumerator(activation)), grid,
        (), (dy, y), (unwritten(dy.shape, dy.dtype) if with_dz else None, into.array if with_db else None),
        (unwritten((path.splits, 1, outputs), "f8"), arrivals(grid[0])),
        (dy.size // outputs, outputs, slope, into.adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


@pytest.mark.parametrize("path", PATHS_WITH_SPLITS, ids=label)
def test_the_bias_gradient_is_within_the_bound_of_affine(path):
    for example in REGISTRY["affine_backward"].contract.examples(
        np.random.default_rng(0), path.storage.arithmetic.name
    ):
        dy, x, W, y = example.args
        times = 16 if path.vector > 1 else 1
        wide = Example(example.label, (np.tile(dy, times), x, np.tile(W, times), np.tile(y, times)), example.options)
        case = Case("affine_backward", path, wide)
        options = {k: v for k, v in case.options.items() if k in ("activation", "slope")}
        with_db = case.options.get("bias_gradient", True)
        dz, db = bias_activation_backward(path, case.given[0], case.given[3], **options, with_db=with_db)
        assert (db is None) == (not with_db)
        if with_db:
            case.check("db", db)
        kind, slope = options.get("activation", "identity"), options.get("slope", 0.01)
        pointwise = (case.given[0], case.given[0], case.given[3])
        same = elementwise(path, "pointwise.cu", "activation_backward", pointwise, (slope,), kind)
        assert dz.tobytes() == same.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (1000, 8), (257, 40)], ids=str)
def test_a_bias_gradient_sums_any_number_of_rows(shape, rng):
    dy = rng.standard_normal(shape).astype(np.float32)
    before = rng.standard_normal(shape[1]).astype(np.float32)
    exact, size = dy.astype(np.float64).sum(0), np.abs(dy).astype(np.float64).sum(0)
    for path in (Path(FLOAT, 1, 13, 1), *([Path(FLOAT, 4, 13)] if shape[1] % 4 == 0 else [])):
        dz, db = bias_activation_backward(path, dy, dy)
        assert dz.tobytes() == dy.tobytes()
        assert_within(db, exact, 10 * FLOAT.unit * size, "db")
        none, added = bias_activation_backward(path, dy, dy, db=Destination(before, adds=True), with_dz=False)
        assert none is None
        np.testing.assert_array_equal(added, db + before)
        same, none = bias_activation_backward(path, dy, dy, with_db=False)
        assert none is None
        assert same.tobytes() == dz.tobytes()


@paths
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_bias_and_activation_follow_a_product(kind, path, rng):
    storage = path.storage
    z, b = storage.of(rng.standard_normal((37, 24))), rng.standard_normal(24).astype(storage.arithmetic)
    run = kernel("dense.cu", "bias_activation", storage.name, path.vector, enumerator(kind))
    for bias in (b, None):
        args = (storage.wide(z), np.eye(24), bias)
        options = {"activation": kind, "slope": 0.2}
        affine = REGISTRY["affine"]
        expected, bound = affine.reference(*args, **options), affine.contract.bound(storage.unit, *args, **options)
        grid = slices(path, 24), 2
        for out in (unwritten(z.shape, z.dtype), z):
            launch = Launch(run, grid, (bias,), (z,), (out,), (), (37, 24, 0.2))
            (got,) = simulate(launch, path.offset)
            allowed = bound + storage.rounding(np.abs(expected) + bound)
            assert_within(storage.wide(got), expected, allowed, f"{kind}, {label(path)}")
