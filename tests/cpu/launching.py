"""Launchers of native kernels for tests: all of them by their ops, examples of every shape, what they must give."""

import numpy as np

from bnengine.fused.cpu import _launch
from bnengine.ops import REGISTRY, Example
from bnengine.runtime.memory import Memory, Outputs
from tests.cpu.large import large
from tests.cuda_on_cpu.cases import Case, fields
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import FLOAT

MANY = _launch.FEW_ROWS + 809  # rows: they are cut, and neither blocks of 16 nor those of a partial result end evenly


def found():
    """{op: launcher} of all ops that have native kernels."""
    return {name: op.versions("numpy")[0].launcher for name, op in REGISTRY.items() if op.versions("numpy")}


LAUNCHERS = found()
NAMES = sorted(LAUNCHERS)
OF_ROWS = (
    *("moments", "normalize", "batch_norm", "normalize_backward", "activation", "activation_backward", "total"),
    *("affine", "affine_backward", "dropout", "dropout_backward", "gather"),
)


def run(name, example, into=None, memory=None):
    result = LAUNCHERS[name](Outputs(memory or Memory(), into or {}), *example.args, **example.options)
    return fields(REGISTRY[name], result)


def examples(name, storage=FLOAT):
    return REGISTRY[name].contract.examples(np.random.default_rng(0), storage.dtype.name)


def assert_same_bits(got, expected, what):
    assert got.keys() == expected.keys()
    for field, value in expected.items():
        other = got[field]
        assert other is value is None or other.tobytes() == value.tobytes(), f"{what}, {field}"


def assert_exact(name, example, storage):
    """Within the bound of the exact result: a reference that adds up thousands of rows in a chain is not always."""
    got = run(name, example)
    Case(name, Path(storage, 1), example).check_all(got)
    return got


def assert_right(name, example, storage):
    """Within the bound of the exact result, and twice that of the reference."""
    Case(name, Path(storage, 1), example).check_with_reference(run(name, example), example)


def of_rows(name, rows, width, dtype=np.float32, activation="relu"):
    """An example of an op over rows, by the shape; its statistics are no batch's but near one's."""
    rng = np.random.default_rng(rows + width)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    x, dy, add, gamma, beta = draw(rows, width) * 2 + 30, draw(rows, width), draw(rows, width), draw(width), draw(width)
    statistics = np.stack([np.full(width, 9.0), np.full(width, 30.1), np.full(width, 4.2)])
    W, z = draw(width, 21), np.tanh(draw(rows, 21))
    out = REGISTRY["normalize"].reference(x, statistics, gamma, beta, add, activation=activation)
    activated = REGISTRY["activation"].reference(add, kind=activation)
    g, samples, step = {"activation": activation}, rng.integers(0, 10**6, rows), np.asarray([5])
    order = rng.permutation(rows)
    return {
        "moments": Example("", (x,)),
        "normalize": Example("", (x, statistics, gamma, beta, add), g),
        "batch_norm": Example("", (x, gamma, beta, add), g),
        "normalize_backward": Example("", (dy, x, out, statistics, gamma, beta, add), g),
        "activation": Example("", (dy,), {"kind": activation}),
        "activation_backward": Example("", (dy, add, activated), {"kind": activation}),
        "total": Example("", (x, dy)),
        "affine": Example("", (dy, W, draw(21)), {"activation": "tanh"}),
        "affine_backward": Example("", (draw(rows, 21), dy, W, z), {"activation": "tanh"}),
        "dropout": Example("", (x, step, samples), {"seed": 2**40 + 3, "layer": 2, "rate": 0.4}),
        "dropout_backward": Example("", (dy, draw(rows, width) > 0), {"rate": 0.4}),
        "gather": Example("", (x, z, draw(rows), samples, draw(4), order, np.asarray([1, 3])), {"rows": rows - 1}),
    }[name]


def several(name):
    """Examples that are cut in several blocks, by columns and by rows, and the op's own."""
    if name in OF_ROWS:
        yield from (of_rows(name, *shape) for shape in ((200, 300), (67, 113), (MANY, 24)))
    yield from large(name)
    yield from examples(name)
