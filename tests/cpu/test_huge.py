"""Arrays of more than 2^31 elements: each launch runs its last block alone, on memory that is not there until touched.

The rest of every array is 0. So the index arithmetic is tested where 32 bits do not suffice, in a few megabytes.
"""

import ctypes
import mmap
from math import prod

import numpy as np
import pytest

from bnengine.fused.cpu import _launch, _load
from bnengine.fused.cpu.native import NativeKernel, _packed, _vector
from bnengine.ops import REGISTRY
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Memory, Outputs
from tests.contracts.cases import fields
from tests.contracts.libraries import assert_same_bits
from tests.cpu.build import _Arguments, _call, _Worker

pytestmark = pytest.mark.usefixtures("native")

FEW, MANY = 40, (1 << 26) + 3  # rows and columns, or columns and rows
FLAT = (1 << 31) + 5
END = 19  # columns or rows that hold something: the last block lies among them
NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE, which Python names from 3.13 on
BACKWARDS = ("moments_of_blocks", "sums_of_blocks")  # their first block is that of the last rows
LAUNCHERS = {name: op.versions("numpy")[0].launcher for name, op in REGISTRY.items() if op.versions("numpy")}
GELU = {"activation": "gelu"}


def empty(shape, dtype):
    """Zeros that take no memory until they are touched."""
    size = prod(shape) * np.dtype(dtype).itemsize
    try:
        memory = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    except OSError as error:
        pytest.skip(f"this system does not reserve {size} bytes without having them: {error}")
    return np.frombuffer(memory, dtype, prod(shape)).reshape(shape)


class LastBlock(Memory):
    """Memory for arrays that are larger than memory; of a launch it runs the last block, of some kernels nothing."""

    def __init__(self, *without):
        super().__init__()
        self.without, self.ran = without, []

    def empty(self, shape, dtype, like):  # noqa: ARG002 -- as every memory is asked
        return empty(shape, dtype)

    def launch(self, launch):
        kernel = launch.kernel
        assert isinstance(kernel, NativeKernel)
        if kernel.name.startswith(self.without):
            return
        self.ran.append(kernel.name)
        last, first = (kernel.width - 1) // kernel.unit * kernel.unit, kernel.name.startswith(BACKWARDS)
        begin, end = (0, kernel.unit) if first else (last, kernel.width)
        given = (*launch.whole, *launch.reads, *launch.writes, *launch.scalars)
        packed, scratch = _packed(kernel.name, given), np.full(kernel.scratch + 64, 255, np.uint8)
        vectors = (
            _vector(ctypes.c_void_p, packed.arrays),
            _vector(ctypes.c_int64, packed.integers),
            _vector(ctypes.c_double, packed.reals),
        )
        at = scratch.ctypes.data + -scratch.ctypes.data % 64
        arguments, worker = _Arguments(*map(ctypes.addressof, vectors)), _Worker(at, kernel.scratch)
        _call(_load.kernel(kernel.name))(ctypes.byref(arguments), begin, end, ctypes.byref(worker))


def run(name, args, options=None, memory=None):
    result = LAUNCHERS[name](Outputs(memory or Memory(), {}), *args, **(options or {}))
    return fields(REGISTRY[name], result)


class Case:
    """An op's arguments as (huge, what is at the end of them), drawn; `axis` is the one that is huge."""

    def __init__(self, axis, rng):
        self.axis, self.rng = axis, rng

    def pair(self, *shape, dtype=np.float32):
        """An array with -1 where it is huge: in full, and the end."""
        whole = empty(tuple(MANY if n == -1 else n for n in shape), dtype)
        end = self.cut(whole, shape.index(-1))
        drawn = self.rng.standard_normal(end.shape)
        end[...] = drawn > 0 if end.dtype.kind == "b" else drawn + 2
        return whole, np.ascontiguousarray(end)

    def matrix(self, dtype=np.float32):
        return self.pair(*((-1, FEW) if self.axis == 0 else (FEW, -1)), dtype=dtype)

    def of_columns(self):
        if self.axis == 1:
            return self.pair(-1)
        same = self.rng.standard_normal(FEW).astype(np.float32)
        return same, same

    def statistics(self):
        whole, end = self.pair(3, -1, dtype=np.float64) if self.axis == 1 else (np.empty((3, FEW)),) * 2
        for held in (self.cut(whole, 1) if self.axis == 1 else whole, end):
            held[:] = [[9.0], [1.5], [2.5]]
        return whole, end

    @staticmethod
    def cut(array, axis):
        return array[(slice(None),) * axis + (slice(-END, None),)]


def assert_end(name, pairs, options=None, *, axis, huge=(), without=()):
    """What the last block made is what the op makes of the end alone; `huge`: the outputs that this axis is one of."""
    memory = LastBlock(*without)
    with np.errstate(all="ignore"):
        got = run(name, [whole for whole, _ in pairs], options, memory)
    expected = run(name, [end for _, end in pairs], options)
    assert memory.ran
    for field, (place, count) in dict(huge).items():
        shown = (slice(None),) * place + (slice(-count, None),)
        assert_same_bits({field: got[field][shown]}, {field: expected[field][shown]}, f"{name}, axis {axis}")


def last(axis):
    """How many columns, or rows, the last block has at least."""
    return (MANY - 1) % 16 + 1 if axis == 1 else 1


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["normalize", "activation", "activation_backward", "total", "dropout_backward"])
def test_element_by_element(name, axis, rng):
    case = Case(axis, rng)
    x, dy = case.matrix(), case.matrix()
    pairs, options = {
        "normalize": lambda: ([x, case.statistics(), case.of_columns(), case.of_columns(), dy], GELU),
        "activation": lambda: ([x], {"kind": "gelu"}),
        "activation_backward": lambda: ([dy, x, dy], {"kind": "gelu"}),
        "total": lambda: ([x, dy], {}),
        "dropout_backward": lambda: ([dy, case.matrix(bool)], {"rate": 0.5}),
    }[name]()
    assert_end(name, pairs, options, axis=axis, huge={"out": (axis, last(axis))})


def test_dropout_draws_by_sample_and_feature(rng):
    case, step = Case(0, rng), np.asarray([7])
    samples = empty((MANY,), np.int64)
    samples[-END:] = rng.integers(0, 2**31, END)
    pairs = [case.matrix(), (step, step), (samples, samples[-END:].copy())]
    options = {"seed": 3, "layer": 1, "rate": 0.5}
    assert_end("dropout", pairs, options, axis=0, huge=dict.fromkeys(REGISTRY["dropout"].fields, (0, 1)))


@pytest.mark.parametrize("name", ["moments", "batch_norm", "normalize_backward"])
def test_batch_norm_by_columns(name, rng):
    case = Case(1, rng)
    x, gamma, beta = case.matrix(), case.of_columns(), case.of_columns()
    huge = {field: (-1 % d, last(1)) for field, d in {"batch": 2, "y": 2, "dx": 2, "dadd": 2, "dgamma": 1}.items()}
    pairs, options = {
        "moments": ([x], {}),
        "batch_norm": ([x, gamma, beta, case.matrix()], GELU),
        "normalize_backward": ([case.matrix(), x, x, case.statistics(), gamma, beta, case.matrix()], GELU),
    }[name]
    assert_end(name, pairs, options, axis=1, huge={f: huge[f] for f in REGISTRY[name].fields if f in huge})


def test_moments_by_rows(rng):
    (x, end) = Case(0, rng).matrix()
    got = run("moments", [x], memory=LastBlock())["batch"][:, -8:]
    sums = end.astype(np.longdouble).sum(axis=0), (end.astype(np.longdouble) ** 2).sum(axis=0)
    mean = sums[0] / MANY
    columns = slice(-got.shape[1], None)
    np.testing.assert_array_equal(got[0], MANY)
    np.testing.assert_allclose(got[1], mean[columns], rtol=1e-6)
    np.testing.assert_allclose(got[2], (sums[1] / MANY - mean**2)[columns], rtol=1e-6)


def test_batch_norm_s_way_back_by_rows(rng):
    case = Case(0, rng)
    (dy, dy_end), (x, x_end), gamma, statistics = case.matrix(), case.matrix(), case.of_columns(), case.statistics()
    args = dy, x, x, statistics[0], gamma[0], gamma[0]
    got = run("normalize_backward", args, memory=LastBlock())
    inv_std = 1 / np.sqrt(2.5 + 1e-5)
    x_norm = (x_end - 1.5) * inv_std
    columns = slice(-8, None)
    np.testing.assert_allclose(got["dbeta"][columns], dy_end.sum(axis=0)[columns], rtol=1e-5)
    np.testing.assert_allclose(got["dgamma"][columns], (dy_end * x_norm).sum(axis=0)[columns], rtol=1e-4)
    np.testing.assert_allclose(got["dx"][-1, columns], (gamma[0] * inv_std * dy_end[-1])[columns], rtol=1e-4)


def test_products(rng):
    small = rng.standard_normal((FEW, FEW)).astype(np.float32)
    by_rows, by_columns = Case(0, rng), Case(1, rng)
    bias = by_columns.of_columns()
    assert_end("affine", [(small, small), by_columns.matrix(), bias], axis=1, huge={"out": (1, last(1))})
    assert_end("affine", [by_rows.matrix(), (small, small)], axis=0, huge={"out": (0, 1)})
    dy, W, y = (by_columns.matrix() for _ in range(3))
    options = {"activation": "tanh", "input_gradient": False}
    huge = {"dW": (1, last(1)), "db": (0, last(1))}
    assert_end("affine_backward", [dy, (small, small), W, y], options, axis=1, huge=huge)
    dy, x, y = (by_rows.matrix() for _ in range(3))
    options = {"activation": "tanh"}
    without = ("gemm_tn", "sums")  # over all rows
    pairs = [dy, x, (small, small), y]
    assert_end("affine_backward", pairs, options, axis=0, huge={"dx": (0, 1)}, without=without)


@pytest.mark.parametrize("kind", ["numbers", "probabilities"])
def test_losses_of_classes(kind, rng):
    case = Case(0, rng)
    target = case.matrix()
    if kind == "numbers":
        target = empty((MANY,), np.int64), rng.integers(0, FEW, END)
        target[0][-END:] = target[1]
    options = {"divisor": 1.0}
    logits = case.matrix()
    assert_end("softmax_cross_entropy", [logits, target], options, axis=0, huge={"dlogits": (0, 1)})
    memory = LastBlock()
    got = run("correct", [logits[0], target[0]], memory=memory)["out"]
    assert got == run("correct", [logits[1][-1:], target[1][-1:]])["out"]


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error"])
def test_losses_of_outputs(name, rng):
    case = Case(0, rng)
    weights = case.pair(-1)
    pairs = [case.matrix(), case.matrix(), weights]
    assert_end(name, pairs, {"divisor": 1.0}, axis=0, huge={"dlogits": (0, 1)})


def test_rows_are_gathered_from_the_end_of_a_data_set(rng):
    case = Case(0, rng)
    (x, end), (y, target), weights = case.matrix(), case.matrix(), case.pair(-1)
    samples = empty((MANY,), np.int64)
    samples[-END:] = rng.integers(0, 2**40, END)
    places = rng.integers(0, END, 12)
    args = x, y, weights[0], samples, np.asarray([2, 3], np.float32), places + MANY - END, np.asarray([1, 1])
    got = run("gather", args, {"rows": 9})
    expected = [a[places[1:10]] for a in (end, target, weights[1], samples[-END:])]
    assert_same_bits(got, dict(zip(got, [*expected, np.asarray([3], np.float32)], strict=True)), "gather")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_raw_rows_are_gathered_from_the_end_of_a_file(dtype, rng):
    """Those of x by their samples, the others by their places."""
    x, samples = empty((MANY, FEW), dtype), empty((MANY,), np.int64)
    end, order = rng.integers(1, 100, (END, FEW)).astype(dtype), rng.permutation(END)
    x[-END:], samples[-END:] = end, order + MANY - END
    case = Case(0, rng)
    (y, target), weights = case.matrix(), case.pair(-1)
    places, ones = rng.integers(0, END, 12), np.asarray([2, 3], np.float32)
    mean, inv_scale = rng.uniform(0, 9, FEW), rng.uniform(0.5, 2, FEW)
    args = x, y, weights[0], samples, ones, places + MANY - END, np.asarray([1, 1])
    chosen = places[1:10]
    raw = end[order[chosen]].astype(np.float64)
    others = target[chosen], weights[1][chosen], samples[-END:][chosen], ones[1:]
    for scaled, expected in (((), raw), ((mean, inv_scale), (raw - mean) * inv_scale)):
        got = run("gather_raw", (*args, *scaled), {"rows": 9})
        assert_same_bits(got, dict(zip(got, [expected.astype(np.float32), *others], strict=True)), "gather_raw")


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_that_lie_apart_are_copied(axis, rng):
    whole, end = Case(axis, rng).matrix()
    view, expected = (whole[:, ::2], end[:, ::2]) if axis == 0 else (whole[::2, 1:], end[::2])
    got = _launch.ready(Outputs(LastBlock(), {}), view)
    assert got is not view
    np.testing.assert_array_equal(got[-1, -END // 2 :], expected[-1, -END // 2 :])


@pytest.mark.parametrize("name", RULES)
def test_updates(name, rng):
    ends = [np.abs(rng.standard_normal(END)).astype(np.float32) for _ in range(2 + len(RULES[name].slots))]
    flat = [empty((FLAT,), np.float32) for _ in ends]
    for whole, end in zip(flat, ends, strict=True):
        whole[-END:] = end
    table = np.asarray([[0.1, *(0.5 for _ in RULES[name].scalars)]], np.float32)
    control = table, np.asarray([1, 0, 0, 0, 0]), np.asarray([True]), np.asarray([0.5], np.float32)
    count = (FLAT - 1) % 16 + 1
    assert count == 5
    options = {"weight_decay": 0.5}
    got = run(
        name, [*flat, *control], {**options, "decay_end": FLAT - 2, "frozen": ((FLAT - 4, FLAT - 3),)}, LastBlock()
    )
    small = {**options, "decay_end": END - 2, "frozen": ((END - 4, END - 3),)}
    expected = run(name, [*ends, *control], small)
    for field, value in expected.items():
        if value is not None:
            assert got[field][-count:].tobytes() == value[-count:].tobytes(), field
    assert (got["parameters"][-count:] != ends[0][-count:]).sum() == count - 1


def test_judge_averages_and_statistics():
    gradients, one = empty((FLAT,), np.float32), np.ones(1, np.float32)
    gradients[-3:] = 3, 4, 12
    got = run("check_step", [one, gradients, np.zeros((1, 3, 4))], {"clip": 1.0}, LastBlock())
    assert got["ok"]
    np.testing.assert_allclose(got["norm"], 13, rtol=1e-6)
    gradients[-1] = np.nan
    assert not run("check_step", [one, gradients, np.zeros((1, 3, 4))], {}, LastBlock())["ok"]

    a, b = empty((FLAT,), np.float64), empty((FLAT,), np.float64)
    a[-2:], b[-2:] = 1, 2
    got = run("average", [a, b, np.asarray([True])], {"decay": 0.75}, LastBlock())
    np.testing.assert_allclose(got["out"][-2:], 1.25)

    channels = (1 << 30) + 1
    old, new = empty((3, channels), np.float64), empty((3, channels), np.float64)
    old[:, -1], new[:, -1] = (4, 1, 1), (4, 3, 1)
    got = run("merge", [old, new], memory=LastBlock())["out"]
    np.testing.assert_allclose(got[:, -1], [8, 2, 2])
