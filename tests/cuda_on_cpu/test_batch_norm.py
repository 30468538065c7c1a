"""The batch normalisation kernels against extended precision, within the bounds of the ops."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from bnengine.fused.cuda import batch_norm as launchers
from bnengine.fused.cuda._launch import slice_width
from bnengine.ops import REGISTRY, Example, Out
from bnengine.runtime.memory import Memory
from tests.cuda_on_cpu import batch_norm_launches as device
from tests.cuda_on_cpu.cases import PATHS_WITH_SPLITS, Case, assert_within, cases, label
from tests.cuda_on_cpu.launch import Destination, Path
from tests.cuda_on_cpu.storage import DOUBLE, FLOAT, HALF

SHARED_MEMORY = 227 * 1024  # bytes a block can have
paths = pytest.mark.parametrize("path", PATHS_WITH_SPLITS, ids=label)


def tiled_cases(name: str, path: Path) -> Iterator[Case]:
    """16-byte access needs a multiple of its width: there an example's channels stand 16 times side by side."""
    return cases(name, path, lambda value: np.tile(value, 16) if path.vector > 1 else value)


@paths
def test_moments_are_within_the_bound_of_the_op(path):
    for case in tiled_cases("moments", path):
        batch = device.moments(path, *case.given)
        case.check("batch", batch)


@paths
def test_normalize_is_within_the_bound_of_the_op(path):
    for case in tiled_cases("normalize", path):
        case.check("out", device.normalize(path, *case.given, **case.options), stored=True)


@paths
def test_normalize_backward_is_within_the_bound_of_the_op(path):
    for case in tiled_cases("normalize_backward", path):
        got = device.normalize_backward(path, *case.given, **case.options)
        for field in ("dx", "dadd"):
            if case.expected[field] is not None:
                case.check(field, got[field], stored=True)
        for field in ("dgamma", "dbeta"):
            if case.expected[field] is not None:
                case.check(field, got[field])


@paths
def test_one_launch_back_gives_the_bytes_of_two(path):
    whole = path._replace(splits=1)
    for case in tiled_cases("normalize_backward", path):
        a_row = slice_width(path.vector) * (path.storage.dtype.itemsize + path.storage.arithmetic.itemsize)
        if device.shape_of(case.given[1])[0] * a_row > SHARED_MEMORY:
            continue
        two, one = (device.normalize_backward(whole, *case.given, **case.options, launches=n) for n in (2, 1))
        for field, got in one.items():
            assert (got is None) == (two[field] is None)
            assert got is None or got.tobytes() == two[field].tobytes(), f"{case.what}, {field}"


@paths
def test_one_launch_gives_the_bytes_of_two(path):
    for case in tiled_cases("normalize", path):
        x, _, *rest = case.given
        whole = path._replace(splits=1)
        one, two = (device.batch_norm(whole, x, *rest, **case.options, launches=n) for n in (1, 2))
        for field, got in one.items():
            assert got.tobytes() == two[field].tobytes(), f"{case.what}, {field}"


SHAPES = ((1, 1), (2, 5), (31, 33), (257, 24), (300, 8), (1000, 3))


@pytest.mark.parametrize("splits", [1, 4, 13])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_number_of_rows_and_channels_gives_the_moments_of_all_rows(shape, splits, rng):
    x = (rng.standard_normal(shape) * 3 + 1000).astype(np.float32)
    for vector in (1, 4) if shape[1] % 4 == 0 else (1,):
        path = Path(FLOAT, vector, splits)
        batch = device.moments(path, x)
        op = REGISTRY["moments"]
        expected, bound = op.reference(x.astype(np.float64)).batch, op.contract.bound(FLOAT.unit, x).batch
        assert_within(batch, expected, bound, f"{shape}, {vector} wide")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_number_of_rows_and_channels_is_normalised_and_differentiated(shape, rng):
    x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[1]).astype(np.float32) for _ in range(2))
    statistics = REGISTRY["moments"].reference(x).batch
    path = Path(FLOAT, 1, 13)
    example = Example("y", (x, statistics, gamma, beta), {"activation": "relu"})
    case = Case("normalize", path, example)
    y = device.normalize(path, *case.given, **example.options)
    case.check("out", y)
    case = Case("normalize_backward", path, Example("dx", (dy, x, y, statistics, gamma, beta), example.options))
    for field, got in device.normalize_backward(path, *case.given, **example.options).items():
        if got is not None:
            case.check(field, got)


def test_a_large_mean_and_an_outlier_cost_no_digits_over_many_rows(rng):
    x = rng.standard_normal((5000, 4))
    x[:, 1] += 1e6
    x[0, 2] = 1e6
    x[2500:, 3] -= 1e4
    x = x.astype(np.float32)
    op = REGISTRY["moments"]
    for splits in (1, 5):
        batch = device.moments(Path(FLOAT, 4, splits), x)
        expected, bound = op.reference(x.astype(np.float64)).batch, op.contract.bound(FLOAT.unit, x).batch
        assert assert_within(batch, expected, bound, "moments") < 0.5


@pytest.mark.parametrize("rows", [40, 600])  # few rows a thread, and whole blocks of them
@pytest.mark.parametrize("value", [1e30, 1e-21, 3e-30, -3e38, 1e-42])
def test_squares_of_the_largest_and_smallest_numbers_neither_overflow_nor_vanish(value, rows, rng):
    x = (value * (1 + rng.random((rows, 4)) / 8)).astype(np.float32)
    op = REGISTRY["moments"]
    batch = device.moments(Path(FLOAT, 4), x)
    expected, bound = op.reference(x.astype(np.float64)).batch, op.contract.bound(FLOAT.unit, x).batch
    assert np.all(batch[2] > 0)
    assert_within(batch, expected, bound, f"about {value}")


def test_differences_that_are_nearly_the_largest_number_have_a_variance():
    x = np.zeros((256, 4), np.float32)
    x[5] = 3e38  # among the 8 rows of its thread
    op = REGISTRY["moments"]
    batch = device.moments(Path(FLOAT, 4), x)
    assert_within(batch, op.reference(x.astype(np.float64)).batch, op.contract.bound(FLOAT.unit, x).batch, "moments")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_spoils_its_own_channel_alone(bad, rng):
    x, dy = (rng.standard_normal((70, 8)).astype(np.float32) for _ in range(2))
    x[33, 2] = bad
    gamma, beta = np.ones(8, np.float32), np.zeros(8, np.float32)
    path = Path(FLOAT, 4, 2)
    batch = device.moments(path, x)
    assert np.isnan(batch[1:, 2]).all()
    assert np.isfinite(np.delete(batch, 2, axis=1)).all()
    y = device.normalize(path, x, batch, gamma, beta, activation="relu")
    with np.errstate(invalid="ignore"):
        expected = REGISTRY["normalize"].reference(x, batch, gamma, beta, activation="relu")
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    got = device.normalize_backward(path, dy, x, y, batch, gamma, beta, activation="relu")
    with np.errstate(invalid="ignore"):
        want = REGISTRY["normalize_backward"].reference(dy, x, y, batch, gamma, beta, activation="relu")
    for field in ("dx", "dgamma", "dbeta"):
        np.testing.assert_array_equal(np.isnan(got[field]), np.isnan(getattr(want, field)))


def test_a_constant_channel_gives_exactly_beta(rng):
    beta = rng.standard_normal(4).astype(np.float32)
    for rows in (1, 2, 7, 100):
        x = np.full((rows, 4), 0.1, np.float32)
        for vector in (1, 4):
            got = device.batch_norm(Path(FLOAT, vector), x, np.ones(4, np.float32), beta)
            np.testing.assert_array_equal(got["batch"][2], 0)
            np.testing.assert_array_equal(got["y"], np.broadcast_to(beta, x.shape))


@pytest.mark.parametrize("vector", [1, 4])
def test_a_proposal_is_written_or_merged(vector, rng):
    x, before = rng.standard_normal((50, 4)).astype(np.float32), np.abs(rng.standard_normal((3, 4))) + 1
    before[0, 2] = 0  # nothing seen there yet
    path = Path(FLOAT, vector, 2)
    own = device.moments(path, x)
    merge, rounding = REGISTRY["merge"], REGISTRY["moments"].contract.bound(FLOAT.unit, x).batch
    for adds in (False, True):
        into = {"pending": Destination(before, adds)}
        expected = merge.reference(before, own) if adds else own
        bound = merge.contract.bound(FLOAT.unit, before, own) + rounding
        for got in (
            device.run(path, launchers.moments, x, into=into),
            *(device.batch_norm(path, x, None, None, into=into, launches=n) for n in (1, 2)),
        ):
            assert_within(got["batch"], own, rounding, "batch")
            assert_within(got["pending"], expected, bound, f"adds {adds}")


def test_normalising_reads_statistics_from_columns_of_a_larger_buffer(rng):
    x, buffer = rng.standard_normal((9, 4)).astype(np.float32), np.abs(rng.standard_normal((3, 10)))
    path = Path(FLOAT, 4)
    expected = device.normalize(path, x, np.ascontiguousarray(buffer[:, :4]), None, None)
    with device.forced(path, at_once=False):
        columns = device.moved(buffer, path)[:, :4]
        got = launchers.normalize(Memory("fused").outputs({}), device.moved(x, path), columns, None, None)
        np.testing.assert_array_equal(got.get(), expected)


@pytest.mark.parametrize("path", [Path(FLOAT, 4), Path(FLOAT, 1, 1, 1), Path(HALF, 8)], ids=label)
def test_gradients_are_added_into_destinations_that_are_never_read_as_the_batch_s_own(path, rng):
    storage = path.storage
    x, dy, before = (storage.of(rng.standard_normal((40, 8))) for _ in range(3))
    gamma, beta, dgamma, dbeta = (rng.standard_normal(8).astype(np.float32) for _ in range(4))
    statistics = REGISTRY["moments"].reference(storage.wide(x)).batch
    y = device.normalize(path, x, statistics, gamma, beta)
    args = dy, x, y, statistics, gamma, beta
    plain = device.normalize_backward(path, *args)
    for launches, adds in itertools.product((1, 2), ({"dx"}, {"dgamma"}, {"dbeta"}, {"dx", "dgamma", "dbeta"})):
        held = {"dx": before, "dgamma": dgamma, "dbeta": dbeta}
        into = {field: Destination(array, field in adds) for field, array in held.items()}
        got = device.normalize_backward(path, *args, into=into, launches=launches)
        for field, array in held.items():
            if field not in adds:
                assert got[field].tobytes() == plain[field].tobytes()
            elif field == "dx":
                sum_ = storage.wide(plain[field]) + storage.wide(array)
                allowed = (
                    storage.rounding(sum_)
                    + 2 * storage.unit * np.abs(sum_)
                    + storage.rounding(storage.wide(plain[field]))
                )
                assert_within(storage.wide(got[field]), sum_, allowed, field)
            else:
                np.testing.assert_array_equal(got[field], plain[field] + array)


@pytest.mark.parametrize("name", ["commit", "merge"])
def test_running_statistics_change_as_in_the_op_and_in_place(name):
    op, path = REGISTRY[name], Path(DOUBLE, 1)
    for example in op.contract.examples(np.random.default_rng(0), "float64"):
        first, second, *rest = example.args
        expected, bound = op.reference(*example.args), op.contract.bound(2.0**-53, *example.args)
        got = device.run(path, getattr(launchers, name), *example.args)["out"]
        assert_within(got, expected, bound, example.label)
        kept = second[0] == 0 if name == "merge" or rest[0][0] else np.ones(first.shape[1], bool)
        assert got[:, kept].tobytes() == first[:, kept].tobytes()
        with device.forced(path, at_once=False):
            running, *others = (device.moved(a, path) for a in example.args)
            getattr(launchers, name)(Memory("fused").outputs({"out": Out(running)}), running, *others)
            assert running.get().tobytes() == got.tobytes()


def test_running_variances_take_the_unbiased_variance_where_asked_for(rng):
    op, channels = REGISTRY["commit"], 1000
    running, pending = (np.abs(rng.standard_normal((3, channels))) for _ in range(2))
    pending[0] = rng.integers(0, 5, channels)
    decay, unbiased = rng.choice([0.0, 0.9, -1.0], channels), rng.random(channels) < 0.5
    args = (running, pending, np.asarray([True]), decay, unbiased)
    got = device.run(Path(DOUBLE, 1), launchers.commit, *args)["out"]
    assert_within(got, op.reference(*args), op.contract.bound(2.0**-53, *args), "commit")
    untouched = pending[0] == 0
    assert got[:, untouched].tobytes() == running[:, untouched].tobytes()
