"""Calls of ops that between them launch every kernel: each storage type, odd and 16-byte rows, few and many of them.

Arrays are NumPy's; `width` odd comes with arrays that begin one element off a 16-byte address.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES

SIZES = ((20, 37), (2100, 37), (20, 64), (2100, 64))  # on the chip or not, one block of rows or several
CLASSES = ((37, 1031), (64, 1032))  # a row for a warp, for a block
FLAT = 5003  # elements of a flat buffer


class Call(NamedTuple):
    """op(*args, **options), with every floating array that is marked `stored` in the storage type."""

    op: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    odd: bool


class Draw:
    """Random arrays: `wide` in the arithmetic type of a storage type, `stored` in it, both small numbers."""

    def __init__(self, dtype: Any) -> None:
        self.rng, self.dtype = np.random.default_rng(0), np.dtype(dtype)
        self.arithmetic = np.dtype("f8" if self.dtype == np.float64 else "f4")

    def stored(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def wide(self, *shape: int) -> np.ndarray:
        return (self.rng.random(shape) + 0.5).astype(self.arithmetic)

    def statistics(self, channels: int, rows: int) -> np.ndarray:
        return np.stack([np.full(channels, float(rows)), self.rng.random(channels), self.rng.random(channels) + 0.5])


def of_layers(draw: Draw) -> Iterator[Call]:
    """Batch normalization, products, activations, dropout."""
    for rows, width in SIZES:
        odd = width % 2 == 1
        x, dy, y, add = (draw.stored(rows, width) for _ in range(4))
        gamma, beta, statistics = draw.wide(width), draw.wide(width), draw.statistics(width, rows)
        W, b = draw.stored(width, width), draw.wide(width)
        yield Call("moments", (x,), {}, odd)
        yield Call("total", (x, dy), {}, odd)
        yield Call("dropout", (x, np.asarray([3]), np.arange(rows)), {"seed": 1, "layer": 0, "rate": 0.4}, odd)
        yield Call("dropout_backward", (dy, draw.rng.random((rows, width)) < 0.5), {"rate": 0.4}, odd)
        for kind, rule in ACTIVATIONS.items():
            options = {"activation": kind}
            yield Call("batch_norm", (x, gamma, beta, add), options, odd)
            yield Call("normalize", (x, statistics, gamma, beta, add), options, odd)
            yield Call("normalize_backward", (dy, x, y, statistics, gamma, beta, add), options, odd)
            yield Call("affine", (x, W, b), options, odd)
            if rule.reads != "z":  # a dense layer keeps its output alone
                yield Call("affine_backward", (dy, x, W, y), options, odd)
            yield Call("activation", (x,), {"kind": kind}, odd)
            yield Call("activation_backward", (dy, x, y), {"kind": kind}, odd)


def of_losses(draw: Draw) -> Iterator[Call]:
    """Losses, rows classified right, and the gather of a batch."""
    rows = 40
    options = {"divisor": float(rows), "scale": draw.wide(1)}
    for widths in CLASSES:
        for classes in widths:
            odd = classes % 2 == 1
            logits, weights = draw.stored(rows, classes), (draw.wide(classes), draw.wide(rows))
            shares = (draw.rng.dirichlet(np.ones(classes), rows)).astype(draw.dtype)
            for target in (draw.rng.integers(0, classes, rows), shares):
                yield Call(
                    "softmax_cross_entropy", (logits, target, *weights), {**options, "label_smoothing": 0.1}, odd
                )
                yield Call("correct", (logits, target), {}, odd)
            for name in ("binary_cross_entropy", "mean_squared_error"):
                yield Call(name, (logits, shares, weights[1]), options, odd)
            data = (draw.stored(rows, classes), draw.wide(rows), np.arange(rows), draw.wide(4))
            order, cursor = draw.rng.permutation(rows), np.asarray([2, 3])
            for target in (draw.rng.integers(0, 5, rows), draw.wide(rows, 2)):
                yield Call("gather", (data[0], target, *data[1:], order, cursor), {"rows": 30, "offset": 3}, odd)


def of_optimizers(draw: Draw, copy16: Any = None) -> Iterator[Call]:
    """With a 16-bit copy of the parameters in 16 bits, of which `copy16` is the dtype, or without."""
    for odd in (True, False):
        options = {"decay_end": 100, "weight_decay": 0.01, "frozen": ((3, 9), (4000, 4002))}
        for name, rule in RULES.items():
            p, g, *slots = (draw.wide(FLAT) for _ in range(2 + len(rule.slots)))
            control = (draw.wide(3, rule.columns), np.asarray([1, 1, 0, 0, 0]), np.asarray([True]), draw.wide(1))
            control = control if copy16 is None else (*control, p.astype(copy16))
            settings = {setting: default or type(default)(0.9) for setting, default in rule.settings.items()}
            for decoupled in (False, True):
                given = {**options, **settings, "decoupled": decoupled}
                yield Call(name, (p, g, *slots, *control), given, odd)


def of_updates(draw: Draw) -> Iterator[Call]:
    """Judge, averages and counts: for parameters, whose storage type is that of the arithmetic."""
    ok, ones = np.asarray([True]), (draw.wide(1), draw.wide(1), np.ones(1))
    for odd in (True, False):
        p, g = draw.wide(FLAT), draw.wide(FLAT)
        scaling = np.asarray([64.0, 3.0, 1.0, 2.0], draw.dtype)
        yield Call("check_step", (ones[0], g, np.ones((2, 3, 40)), scaling), {"clip": 1.0}, odd)
        yield Call("average", (p, g, ok), {"decay": 0.99}, odd)
        yield Call("add_epoch_sums", (np.zeros(4), *ones, ok), {"rows": 40}, odd)


def of_statistics() -> Iterator[Call]:
    """What has one type for all networks."""
    draw, ok = Draw(np.float64), np.asarray([True])
    a, b = draw.statistics(700, 20), draw.statistics(700, 30)
    yield Call("merge", (a, b), {}, False)
    yield Call("commit", (a, b, ok, np.full(700, 0.9), np.ones(700, bool)), {}, False)
    yield Call("count_step", (np.asarray([1, 1, 0, 0, 0]), ok), {}, False)


def every_call(dtype: Any) -> Iterator[Call]:
    """All calls for one storage type."""
    draw = Draw(dtype)
    yield from of_layers(draw)
    yield from of_losses(draw)
    if draw.dtype == draw.arithmetic:
        yield from of_updates(draw)
        yield from of_optimizers(draw)
    else:
        yield from of_optimizers(Draw(draw.arithmetic), copy16=draw.dtype)
    if draw.dtype == np.float32:
        yield from of_statistics()
