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
from tests.contracts.examples import Draw, of_rows, outputs, softmax
from tests.contracts.libraries import assert_same_bits
from tests.cpu.build import _Arguments, _call, _Worker

pytestmark = pytest.mark.usefixtures("native")

FEW, MANY = 40, (1 << 26) + 3  # rows and columns, or columns and rows
FLAT = (1 << 31) + 5
END = 21  # columns or rows that hold something: the last block is among them
NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE, which Python names from 3.13 on
BACKWARDS = ("moments_of_blocks", "sums_of_blocks")  # their first block is that of the last rows
LAUNCHERS = {name: op.versions("numpy")[0].launcher for name, op in REGISTRY.items() if op.versions("numpy")}


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

    def empty(self, shape, dtype, like):  # noqa: ARG002 -- the signature of every memory
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


def enlarged(a, axis):
    """An array whose last END rows or columns are those of `a`, the others 0: far more than memory has."""
    shape = list(a.shape)
    shape[axis] = MANY
    whole = empty(tuple(shape), a.dtype)
    cut(whole, axis, END)[...] = a
    return whole


def cut(array, axis, count):
    """The last rows or columns."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(-count, None),)]


# Ops by the axis that is huge: the arguments that it is an axis of, and the outputs whose last block is compared.
BY_ROWS = {
    "normalize": ((0, 4), "out"), "activation": ((0,), "out"), "activation_backward": ((0, 1, 2), "out"),
    "total": ((0, 1), "out"), "dropout": ((0, 2), "out keep"), "dropout_backward": ((0, 1), "out"),
    "affine": ((0,), "out"), "affine_backward": ((0, 1, 3), "dx"),
}  # fmt: skip
BY_COLUMNS = {
    "normalize": ((0, 1, 2, 3, 4), "out"), "activation": ((0,), "out"), "activation_backward": ((0, 1, 2), "out"),
    "total": ((0, 1), "out"), "dropout_backward": ((0, 1), "out"), "moments": ((0,), "batch"),
    "batch_norm": ((0, 1, 2, 3), "y batch"), "affine": ((1, 2), "out"), "affine_backward": ((0, 2, 3), "dW db"),
    "normalize_backward": ((0, 1, 2, 3, 4, 5, 6), "dx dadd dgamma dbeta"),
}  # fmt: skip
CASES = [(axis, name) for axis, ops in ((0, BY_ROWS), (-1, BY_COLUMNS)) for name in ops]


@pytest.mark.parametrize(("axis", "name"), CASES)
def test_the_last_block_of_an_op_is_that_of_the_end_alone(axis, name):
    places, fields_ = (BY_ROWS if axis == 0 else BY_COLUMNS)[name]
    shape = (END, FEW) if axis == 0 else (FEW, END)
    kind = "tanh" if name.startswith("affine") else "gelu"
    (_, args, options), *_ = of_rows(name, "float32", *shape, kind)
    assert_end(name, args, options, axis, places, fields_)


def assert_end(name, args, options, axis, places, fields_):
    """The last block, alone, gives what the op gives for the end of its arguments."""
    huge = [enlarged(a, axis) if i in places else a for i, a in enumerate(args)]
    memory = LastBlock(*(("gemm_tn", "sums") if (axis, name) == (0, "affine_backward") else ()))  # over all rows
    with np.errstate(all="ignore"):
        got, expected = run(name, huge, options, memory), run(name, args, options)
    assert memory.ran
    count = 1 if axis == 0 else (MANY - 1) % 16 + 1  # of rows, or columns, in the last block at least
    for field in fields_.split():
        ends = (cut(a[field], axis, count) for a in (got, expected))
        assert_same_bits(*({field: end} for end in ends), f"{name}, axis {axis}")


@pytest.mark.parametrize("kind", ["numbers", "probabilities"])
def test_losses_of_classes(kind):
    _, args, options = softmax(Draw("float32"), END, FEW, kind)
    assert_end("softmax_cross_entropy", args, options, 0, (0, 1), "dlogits")
    got = run("correct", [enlarged(a, 0) for a in args], memory=LastBlock())["out"]
    assert got == run("correct", [a[-1:] for a in args])["out"]


@pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error"])
def test_losses_of_outputs(name):
    _, args, options = outputs(Draw("float32"), END, FEW)
    assert_end(name, args, options, 0, (0, 1, 2), "dlogits")


def test_moments_by_rows(rng):
    end = rng.standard_normal((END, FEW)).astype(np.float32) + 2
    got = run("moments", [enlarged(end, 0)], memory=LastBlock())["batch"][:, -8:]
    wide = end.astype(np.longdouble)[:, -8:]
    mean = wide.sum(axis=0) / MANY
    np.testing.assert_array_equal(got[0], MANY)
    np.testing.assert_allclose(got[1], mean, rtol=1e-6)
    np.testing.assert_allclose(got[2], (wide**2).sum(axis=0) / MANY - mean**2, rtol=1e-6)


def test_gradients_of_batch_norm_by_rows(rng):
    dy, x = (rng.standard_normal((END, FEW)).astype(np.float32) + 2 for _ in range(2))
    gamma, statistics = rng.standard_normal(FEW).astype(np.float32), np.repeat([[9.0], [1.5], [2.5]], FEW, axis=1)
    huge_dy, huge_x = enlarged(dy, 0), enlarged(x, 0)
    got = run("normalize_backward", (huge_dy, huge_x, huge_x, statistics, gamma, gamma), memory=LastBlock())
    inv_std = 1 / np.sqrt(2.5 + 1e-5)
    x_norm = (x - 1.5) * inv_std
    columns = slice(-8, None)
    np.testing.assert_allclose(got["dbeta"][columns], dy.sum(axis=0)[columns], rtol=1e-5)
    np.testing.assert_allclose(got["dgamma"][columns], (dy * x_norm).sum(axis=0)[columns], rtol=1e-4)
    np.testing.assert_allclose(got["dx"][-1, columns], (gamma * inv_std * dy[-1])[columns], rtol=1e-4)


def test_rows_are_gathered_from_the_end_of_a_data_set(rng):
    x, y, weights = Draw("float32").wide(END, FEW), Draw("float32", 1).wide(END, FEW), Draw("float32").shares(END)
    data, places = (x, y, weights, rng.integers(0, 2**40, END)), rng.integers(0, END, 12)
    ones, cursor = np.asarray([2, 3], np.float32), np.asarray([1, 1])
    got = run("gather", (*(enlarged(a, 0) for a in data), ones, places + MANY - END, cursor), {"rows": 9})
    expected = [a[places[1:10]] for a in data]
    assert_same_bits(got, dict(zip(got, [*expected, np.asarray([3], np.float32)], strict=True)), "gather")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_raw_rows_are_gathered_from_the_end_of_a_file(dtype, rng):
    """Those of x by their samples, the others by their places."""
    x, samples = empty((MANY, FEW), dtype), empty((MANY,), np.int64)
    end, order = rng.integers(1, 100, (END, FEW)).astype(dtype), rng.permutation(END)
    x[-END:], samples[-END:] = end, order + MANY - END
    target, weights = Draw("float32").wide(END, FEW), Draw("float32").shares(END)
    places, ones = rng.integers(0, END, 12), np.asarray([2, 3], np.float32)
    mean, inv_scale = rng.uniform(0, 9, FEW), rng.uniform(0.5, 2, FEW)
    given = enlarged(target, 0), enlarged(weights, 0)
    args = x, *given, samples, ones, places + MANY - END, np.asarray([1, 1])
    chosen = places[1:10]
    raw = end[order[chosen]].astype(np.float64)
    others = target[chosen], weights[chosen], samples[-END:][chosen], ones[1:]
    for scaled, expected in (((), raw), ((mean, inv_scale), (raw - mean) * inv_scale)):
        got = run("gather_raw", (*args, *scaled), {"rows": 9})
        assert_same_bits(got, dict(zip(got, [expected.astype(np.float32), *others], strict=True)), "gather_raw")


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_that_lie_apart_are_copied(axis, rng):
    end = rng.standard_normal((END, FEW) if axis == 0 else (FEW, END)).astype(np.float32)
    whole = enlarged(end, axis)
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
