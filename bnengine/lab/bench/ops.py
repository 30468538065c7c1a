"""Single ops, a row each: their inputs, which all frameworks have in common, and how bnengine computes them."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops import onto
from .workloads import PRECISIONS

Shape = tuple[int, ...]

BLOCK = 1 << 22  # random numbers drawn for an array; larger arrays repeat them, which costs memory the same
SEED, LAYER, RATE = 1, 2, 0.5
LR, BETA1, BETA2, ADAM_EPS, EPS = 1e-3, 0.9, 0.999, 1e-8, 1e-5
PRODUCTS = ("NN", "TN", "NT")  # of a training step: forward x W, the weights' gradient x^T dy, the input's dy W^T


class Op(NamedTuple):
    """An op. `inputs(*shape)`: arrays, and shapes of standard normal numbers; `ours(run, *inputs)` runs it.

    `only_result`: of what ours launches, only what writes the result counts.
    """

    inputs: Callable[..., list[Any]]
    ours: Callable[..., Any]
    only_result: bool = False

    def arrays(self, shape: Shape, dtype: str, put: Callable[[Array, str, Shape], Any]) -> list[Any]:
        """Make the inputs by `put(array, dtype, shape)`. Random matrices have `dtype`, random vectors float32."""
        inputs = list[Any]()
        for seed, given in enumerate(self.inputs(*shape), start=1):
            if isinstance(given, np.ndarray):
                inputs.append(put(given, str(given.dtype), given.shape))
            else:
                inputs.append(put(block(given, seed), dtype if len(given) > 1 else "float32", given))
        return inputs


def block(shape: Shape, seed: int) -> Array:
    """Draw the standard normal numbers, float32, of which an array of this shape consists."""
    return np.random.default_rng(seed).standard_normal(min(prod(shape), BLOCK), dtype=np.float32)


def op_of(given: dict[str, Any], cut: bool = False) -> tuple[str, Shape, str]:
    """Return a case's op, shape and dtype; `cut`: parameters as rows of a matrix where the case has several tensors."""
    if "product" in given:
        return given["product"], (given["m"], given["n"], given["k"]), "float32"
    shape, tensors = tuple(given["shape"]), given.get("tensors", 1)
    if cut and tensors > 1:
        shape = tensors, shape[0] // tensors
    return given["op"], shape, given.get("dtype", "float32")


def _batch_norm(run: Any, x: Array, dy: Array, gamma: Array, beta: Array) -> Array:
    y, batch, _ = run(ops.batch_norm, x, gamma, beta)
    return run(ops.normalize_backward, dy, x, y, batch, gamma, beta).dx


def _adam_inputs(*shape: int) -> list[Any]:
    moments = [np.zeros(shape, np.float32) for _ in range(2)]
    table = np.asarray([[LR, 1 - BETA1, 1 - BETA2]], np.float32)
    return [shape, shape, *moments, table, np.zeros(5, np.int64), np.ones(1, bool), np.ones(1, np.float32)]


def _adam(run: Any, p: Array, g: Array, m: Array, v: Array, *step: Array) -> Array:
    options = {"beta1": BETA1, "beta2": BETA2, "eps": ADAM_EPS, "into": onto(parameters=p, m=m, v=v)}
    return run(ops.adam, p, g, m, v, None, *step, decay_end=0, **options).parameters


def _dropout(run: Any, x: Array, dy: Array, step: Array, samples: Array) -> Array:
    dropped = run(ops.dropout, x, step, samples, seed=SEED, layer=LAYER, rate=RATE)
    return run(ops.dropout_backward, dy, dropped.keep, rate=RATE)


def _affine(run: Any, x: Array, dy: Array, W: Array, b: Array) -> Array:
    y = run(ops.affine, x, W, b, activation="relu")
    run(ops.affine_backward, dy, x, W, y, activation="relu")
    return y  # not dx, which jumps by roundings at relu's corner


def _gather_inputs(rows: int, channels: int) -> list[Any]:
    numbers, order = np.arange(2 * rows), np.random.default_rng(0).permutation(2 * rows)
    return [(2 * rows, channels), numbers, numbers, np.asarray([rows], np.float32), order, np.zeros(2, np.int64)]


def _product_inputs(kind: str, m: int, n: int, k: int) -> list[Any]:
    """Both factors as they lie in memory, the result, and an input that ours needs and whose values do not matter."""
    factors = [(k, m) if kind == "TN" else (m, k), (n, k) if kind == "NT" else (k, n)]
    return [*factors, np.zeros((m, n), np.float32), np.zeros((m, n), np.float32)]


def _product(kind: str, run: Any, a: Array, b: Array, c: Array, unused: Array) -> Array:
    if kind == "NN":
        return run(ops.affine, a, b, into=onto(out=c))
    if kind == "TN":
        options = {"input_gradient": False, "bias_gradient": False}
        return run(ops.affine_backward, b, a, unused, b, into=onto(dW=c), **options).dW
    return run(ops.affine_backward, a, unused, b, a, bias_gradient=False, into=onto(dx=c)).dx


OPS = {
    "batch_norm": Op(lambda m, n: [(m, n), (m, n), (n,), (n,)], _batch_norm),
    "adam": Op(_adam_inputs, _adam),
    "softmax": Op(
        lambda m, n: [(m, n), np.random.default_rng(0).integers(0, n, m), np.asarray([m], np.float32)],
        lambda run, z, labels, total: run(ops.softmax_cross_entropy, z, labels, divisor=total).dlogits,
    ),
    "dropout": Op(lambda m, n: [(m, n), (m, n), np.arange(1), np.arange(m)], _dropout),
    "affine": Op(lambda m, n: [(m, n), (m, n), (n, n), (n,)], _affine),
    "check_step": Op(
        lambda n: [(n,), (1,), np.zeros((1, 3, 1))], lambda run, g, *rest: run(ops.check_step, rest[0], g, rest[1]).norm
    ),
    "gather": Op(
        _gather_inputs,
        lambda run, x, classes, *rest: run(ops.gather, x, classes, None, *rest, rows=len(rest[2]) // 2).x,
    ),
    **{kind: Op(partial(_product_inputs, kind), partial(_product, kind), only_result=True) for kind in PRODUCTS},
    **{
        f"gemm {name}": Op(
            lambda n: [(n, n), (n, n)],
            partial(
                lambda precision, run, a, b: run(ops.affine, a, b, precision=precision),
                name.replace("bfloat16", "highest"),
            ),
        )
        for name in PRECISIONS
    },
}
