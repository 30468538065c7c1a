"""Single ops on the device: what they must move or compute, how ours are called, which of PyTorch's does the same.

Bytes are by a model, not by a counter: each array that must be read or written counts once for every time, and batch
normalisation 8 times, 3 forward (moments; x and y) and 5 back (dy and x for the sums; dy, x and dx). A version that
keeps x on the chip can so have more than the whole bandwidth.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ... import ops
from ..._typing import Array
from ...runtime.memory import Arena
from .machine import Machine

Call = Callable[[Arena], Array]
SEED, LAYER, RATE = 1, 2, 0.5
ADAM_OPTIONS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
LR = 1e-3


class Kernel(NamedTuple):
    """One op, or one with its way back, at one shape in one dtype.

    `amount`: bytes moved, or operations where `unit` is "flops"; `model`: how they are counted. `ours(machine, shape)`
    makes the inputs and gives the inputs and the call, whose result is compared with the peer's; `peer` is the name of
    PyTorch's way in `torch_kernels`, "" if there is none; `tolerance`: how far a peer may be off, as a share of the
    largest element, None where random numbers differ.
    """

    what: str
    variant: str
    shape: tuple[int, ...]
    amount: int
    unit: str
    model: str
    ours: Callable[[Machine, tuple[int, ...], str], tuple[list[Array], Call]]
    peer: str
    tolerance: float | None
    targeted: bool


TOLERANCES = {"float32": 1e-4, "bfloat16": 2.0**-5}
SIZES = {"float32": 4, "bfloat16": 2}


def kernels(scale: int = 1) -> tuple[Kernel, ...]:
    """All of them; the rows, or the parameters, are divided by `scale`. Those with a target come first."""
    return tuple(sorted(_kernels(scale), key=lambda kernel: not kernel.targeted))


def _kernels(scale: int) -> Iterator[Kernel]:
    for whole, channels in ((65536, 1024), (200704, 256)):
        shape = (whole // scale, channels)
        what, model = f"batch norm {shape}", "8 passes over (rows, channels): 3 forward, 5 back"
        for dtype, size in SIZES.items():
            moved = 8 * shape[0] * channels * size
            yield Kernel(what, dtype, shape, moved, "bytes", model, batch_norm, "batch_norm", TOLERANCES[dtype], True)
    n = 100_000_000 // scale
    model = "7 passes over the parameters: 4 reads, 3 writes"
    yield Kernel(f"Adam, {n:,} parameters", "float32", (n,), 7 * 4 * n, "bytes", model, adam, "adam", 1e-4, True)
    shape, model = (65536 // scale, 4096), "2 passes: logits read, gradient written; and the targets"
    moved = shape[0] * (2 * 4 * shape[1] + 8)
    yield Kernel(
        f"softmax cross-entropy {shape}", "float32", shape, moved, "bytes", model, softmax, "softmax", 1e-4, True
    )
    yield from _smaller(scale)


def _smaller(scale: int) -> Iterator[Kernel]:
    rows = 65536 // scale
    shape, elements = (rows, 1024), rows * 1024
    for dtype, size in SIZES.items():
        model = "forward and back: x, y, dy, dx, and a byte an element for what was kept, written and read"
        amount = elements * (4 * size + 2)
        name = f"dropout forward and back {shape}"
        yield Kernel(name, dtype, shape, amount, "bytes", model, dropout, "dropout", None, False)
    model = "6 m k n: y = relu(x W + b), dW and dx, with their epilogues"
    flops = 6 * rows * 1024 * 1024
    name = f"affine relu forward and back {shape} by (1024, 1024)"
    yield Kernel(name, "float32", shape, flops, "flops", model, affine, "affine", 1e-4, False)
    n = 100_000_000 // scale
    model = "1 pass over the gradients"
    yield Kernel(
        f"check_step, {n:,} gradients", "float32", (n,), 4 * n, "bytes", model, check_step, "norm", 1e-4, False
    )
    model = "2 passes over the rows that are taken"
    moved = 2 * 4 * elements
    name = f"gather {shape} of {(2 * rows, 1024)}"
    yield Kernel(name, "float32", shape, moved, "bytes", model, gather, "gather", 0.0, False)


# -- our calls: (the arrays that a replay reads, the call)


def batch_norm(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    x, dy = (machine.random(shape, dtype, seed) for seed in (1, 2))
    gamma, beta = (machine.random(shape[1:], seed=seed) for seed in (3, 4))

    def call(memory: Arena) -> Array:
        y, batch, _ = memory.run(ops.batch_norm, x, gamma, beta)
        return memory.run(ops.normalize_backward, dy, x, y, batch, gamma, beta).dx

    return [x, dy, gamma, beta], call


def adam(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    asarray = machine.backend.asarray
    p, g = (machine.random(shape, dtype, seed) for seed in (1, 2))
    m, v = (machine.backend.xp.zeros(shape, dtype=p.dtype, device=machine.backend.device) for _ in range(2))
    table = asarray(np.asarray([[LR, 1 - 0.9, 1 - 0.999]], np.float32), copy=True)
    counters = asarray(np.zeros(5, np.int64), copy=True)
    ok, factor = asarray(np.ones(1, bool), copy=True), asarray(np.ones(1, np.float32), copy=True)
    into = ops.onto(parameters=p, m=m, v=v)

    def call(memory: Arena) -> Array:
        given = (p, g, m, v, None, table, counters, ok, factor)
        return memory.run(ops.adam, *given, decay_end=0, into=into, **ADAM_OPTIONS).parameters

    return [p, g, m, v, table, counters, ok, factor], call


def softmax(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    logits = machine.random(shape, dtype, 1)
    classes = machine.backend.asarray(targets(shape), copy=True)
    total = machine.backend.asarray(np.asarray([shape[0]], np.float32), copy=True)

    def call(memory: Arena) -> Array:
        return memory.run(ops.softmax_cross_entropy, logits, classes, divisor=total).dlogits

    return [logits, classes, total], call


def targets(shape: tuple[int, ...]) -> Array:
    """A class for each row of (rows, classes)."""
    return np.random.default_rng(0).integers(0, shape[1], shape[0])


def dropout(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    x, dy = (machine.random(shape, dtype, seed) for seed in (1, 2))
    step, samples = (machine.backend.asarray(np.arange(n), copy=True) for n in (1, shape[0]))

    def call(memory: Arena) -> Array:
        dropped = memory.run(ops.dropout, x, step, samples, seed=SEED, layer=LAYER, rate=RATE)
        return memory.run(ops.dropout_backward, dy, dropped.keep, rate=RATE)

    return [x, dy, step, samples], call


def affine(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    width = shape[1]
    x, dy = (machine.random(shape, dtype, seed) for seed in (1, 2))
    W, b = machine.random((width, width), dtype, 3), machine.random((width,), dtype, 4)

    def call(memory: Arena) -> Array:
        y = memory.run(ops.affine, x, W, b, activation="relu")
        memory.run(ops.affine_backward, dy, x, W, y, activation="relu")
        return y  # where relu's corner is, dx jumps by roundings

    return [x, dy, W, b], call


def check_step(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    gradients, loss = machine.random(shape, dtype, 1), machine.random((1,), dtype, 2)
    pending = machine.backend.asarray(np.zeros((1, 3, 1)), copy=True)

    def call(memory: Arena) -> Array:
        return memory.run(ops.check_step, loss, gradients, pending).norm

    return [gradients, loss, pending], call


def gather(machine: Machine, shape: tuple[int, ...], dtype: str) -> tuple[list[Array], Call]:
    rows = shape[0]
    x = machine.random((2 * rows, shape[1]), dtype, 1)
    asarray = machine.backend.asarray
    classes, samples = (asarray(np.arange(2 * rows), copy=True) for _ in range(2))
    places, cursor = asarray(places_of(rows), copy=True), asarray(np.zeros(2, np.int64), copy=True)
    total = asarray(np.asarray([rows], np.float32), copy=True)

    def call(memory: Arena) -> Array:
        return memory.run(ops.gather, x, classes, None, samples, total, places, cursor, rows=rows).x

    return [x, classes, samples, total, places, cursor], call


def places_of(rows: int) -> Array:
    """All of twice as many rows in a random order."""
    return np.random.default_rng(0).permutation(2 * rows)
