"""Single ops, a row each: inputs, and how every framework computes them.

An op's result is compared between frameworks, so all of them have the same inputs. A shape asks for standard normal
numbers, drawn with the input's place as seed; an array is used itself. Vectors are float32; matrices have the dtype of
the measurement.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops import onto

Shape = tuple[int, ...]
Call = Callable[[], Any]

BLOCK = 1 << 22  # random numbers drawn for an array; larger arrays repeat them, which costs memory the same
SEED, LAYER, RATE = 1, 2, 0.5
LR, BETA1, BETA2, ADAM_EPS, EPS = 1e-3, 0.9, 0.999, 1e-8, 1e-5


class Op(NamedTuple):
    """An op. `ours(run, *inputs)` runs it; the others return a call that does, given their library and the inputs."""

    inputs: Callable[..., list[Any]]
    ours: Callable[..., Any]
    torch: Callable[..., Call] | None = None
    jax: Callable[..., Call] | None = None
    numpy: Callable[..., Call] | None = None
    only_result: bool = False  # of what ours launches, only what writes the result counts

    def arrays(self, shape: Shape, normal: Callable[[Shape, int], Any], put: Callable[[Array], Any]) -> list[Any]:
        """Make the inputs: `normal(shape, seed)` draws numbers, `put(array)` copies a NumPy array."""
        inputs = enumerate(self.inputs(*shape), start=1)
        return [put(given) if isinstance(given, np.ndarray) else normal(given, seed) for seed, given in inputs]


def normal_block(size: int, seed: int) -> Array:
    """Draw the standard normal numbers, float32, of which an array of `size` elements consists."""
    return np.random.default_rng(seed).standard_normal(min(size, BLOCK), dtype=np.float32)


# -- batch norm, forward and backward


def _batch_norm(run: Any, x: Array, dy: Array, gamma: Array, beta: Array) -> Array:
    y, batch, _ = run(ops.batch_norm, x, gamma, beta)
    return run(ops.normalize_backward, dy, x, y, batch, gamma, beta).dx


def _torch_batch_norm(torch: Any, wrap: Any, x: Any, dy: Any, gamma: Any, beta: Any) -> Call:
    function = partial(torch.nn.functional.batch_norm, training=True, eps=EPS)
    return _torch_gradient(torch, wrap(lambda: function(x, None, None, gamma, beta)), (x, gamma, beta), dy)


def _torch_gradient(torch: Any, forward: Call, inputs: tuple[Any, ...], dy: Any = None) -> Call:
    """Return a call of forward and backward; its result is the gradient of the first input."""
    for tensor in inputs:
        tensor.requires_grad_()
    return lambda: torch.autograd.grad(forward(), inputs, dy)[0]


def jax_normalized(jnp: Any, x: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """Batch norm in training by JAX, with mean and biased variance."""
    mean = jnp.mean(x, axis=0)
    centered = x - mean
    var = jnp.mean(centered * centered, axis=0)
    return centered * (gamma / jnp.sqrt(var + EPS)) + beta, mean, var


def _jax_batch_norm(jax: Any, x: Any, dy: Any, gamma: Any, beta: Any) -> Call:
    def both(x: Any, gamma: Any, beta: Any, dy: Any) -> tuple[Any, Any]:
        y, backward = jax.vjp(lambda *inputs: jax_normalized(jax.numpy, *inputs)[0], x, gamma, beta)
        return y, backward(dy)

    compiled = jax.jit(both)
    return lambda: compiled(x, gamma, beta, dy)[1][0]


# -- Adam, of one tensor (n,) or of several (tensors, n)


def _adam_inputs(*shape: int) -> list[Any]:
    moments = [np.zeros(shape, np.float32) for _ in range(2)]
    table = np.asarray([[LR, 1 - BETA1, 1 - BETA2]], np.float32)
    return [shape, shape, *moments, table, np.zeros(5, np.int64), np.ones(1, bool), np.ones(1, np.float32)]


def _adam(run: Any, p: Array, g: Array, m: Array, v: Array, *step: Array) -> Array:
    options = {"beta1": BETA1, "beta2": BETA2, "eps": ADAM_EPS, "into": onto(parameters=p, m=m, v=v)}
    return run(ops.adam, p, g, m, v, None, *step, decay_end=0, **options).parameters


def _torch_adam(torch: Any, _wrap: Any, p: Any, g: Any, *_ours: Any) -> Call:
    tensors = list(p) if p.ndim > 1 else [p]
    for tensor, gradient in zip(tensors, g if p.ndim > 1 else [g], strict=True):
        tensor.requires_grad_().grad = gradient
    step = torch.optim.Adam(tensors, lr=LR, betas=(BETA1, BETA2), eps=ADAM_EPS, fused=True).step
    return lambda: (step(), p.detach())[1]


def jax_adam(jax: Any, lr: float, parameters: Any, gradients: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
    """Update any tree of arrays by Adam in JAX; t counts from 1."""
    each = jax.tree_util.tree_map
    m = each(lambda old, g: BETA1 * old + (1 - BETA1) * g, m, gradients)
    v = each(lambda old, g: BETA2 * old + (1 - BETA2) * g * g, v, gradients)
    first, second = 1 - BETA1**t, 1 - BETA2**t

    def update(p: Any, a: Any, b: Any) -> Any:
        return p - lr * (a / first) / (jax.numpy.sqrt(b / second) + ADAM_EPS)

    return each(update, parameters, m, v), m, v


def _jax_adam(jax: Any, *inputs: Any) -> Call:
    p, g, m, v = (list(array) if array.ndim > 1 else [array] for array in inputs[:4])
    state = [p, m, v, jax.numpy.float32(0)]

    def update(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, ...]:
        return *jax_adam(jax, LR, p, g, m, v, t + 1), t + 1

    compiled = jax.jit(update, donate_argnums=(0, 2, 3))

    def call() -> Any:
        state[:] = compiled(state[0], g, *state[1:])
        return state[0]

    return call


# -- softmax cross-entropy with its gradient


def _softmax_inputs(rows: int, classes: int) -> list[Any]:
    labels = np.random.default_rng(0).integers(0, classes, rows)
    return [(rows, classes), labels, np.asarray([rows], np.float32)]


def _softmax(run: Any, logits: Array, labels: Array, total: Array) -> Array:
    return run(ops.softmax_cross_entropy, logits, labels, divisor=total).dlogits


def _torch_softmax(torch: Any, wrap: Any, logits: Any, labels: Any, _total: Any) -> Call:
    return _torch_gradient(torch, wrap(lambda: torch.nn.functional.cross_entropy(logits, labels)), (logits,))


def jax_cross_entropy(jax: Any, logits: Any, labels: Any) -> Any:
    """The mean over the rows by JAX."""
    picked = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -jax.numpy.mean(picked)


def _jax_softmax(jax: Any, logits: Any, labels: Any, _total: Any) -> Call:
    both = jax.jit(jax.value_and_grad(lambda z: jax_cross_entropy(jax, z, labels)))
    return lambda: both(logits)[1]


# -- ops that are timed on a GPU only


def _dropout(run: Any, x: Array, dy: Array, step: Array, samples: Array) -> Array:
    dropped = run(ops.dropout, x, step, samples, seed=SEED, layer=LAYER, rate=RATE)
    return run(ops.dropout_backward, dy, dropped.keep, rate=RATE)


def _torch_dropout(torch: Any, _wrap: Any, x: Any, dy: Any, *_ours: Any) -> Call:
    return _torch_gradient(torch, lambda: torch.nn.functional.dropout(x, RATE, training=True), (x,), dy)


def _affine(run: Any, x: Array, dy: Array, W: Array, b: Array) -> Array:
    y = run(ops.affine, x, W, b, activation="relu")
    run(ops.affine_backward, dy, x, W, y, activation="relu")
    return y  # not dx, which jumps by roundings at relu's corner


def _torch_affine(torch: Any, _wrap: Any, x: Any, dy: Any, W: Any, b: Any) -> Call:
    inputs = x, W.T.contiguous(), b
    outputs: list[Any] = []

    def forward() -> Any:
        outputs[:] = [torch.relu(torch.nn.functional.linear(*inputs))]
        return outputs[0]

    both = _torch_gradient(torch, forward, inputs, dy)
    return lambda: (both(), outputs[0].detach())[1]


def _gather_inputs(rows: int, channels: int) -> list[Any]:
    numbers, order = np.arange(2 * rows), np.random.default_rng(0).permutation(2 * rows)
    return [(2 * rows, channels), numbers, numbers, np.asarray([rows], np.float32), order, np.zeros(2, np.int64)]


def _gather(run: Any, x: Array, classes: Array, samples: Array, total: Array, order: Array, cursor: Array) -> Array:
    return run(ops.gather, x, classes, None, samples, total, order, cursor, rows=len(order) // 2).x


def _torch_gather(
    _torch: Any, _wrap: Any, x: Any, _classes: Any, _samples: Any, _total: Any, order: Any, _at: Any
) -> Call:
    places = order[: len(order) // 2].contiguous()
    return lambda: x.index_select(0, places)


# -- products of a training step: forward x W, the weights' gradient x^T dy, the input's dy W^T


def _product_inputs(kind: str, m: int, n: int, k: int) -> list[Any]:
    """Both factors as they lie in memory, the result, and an input that ours needs and whose values do not matter."""
    factors = [(k, m) if kind == "TN" else (m, k), (n, k) if kind == "NT" else (k, n)]
    return [*factors, np.zeros((m, n), np.float32), np.zeros((m, n), np.float32)]


def _nn(run: Any, a: Array, b: Array, c: Array, _unused: Array) -> Array:
    return run(ops.affine, a, b, into=onto(out=c))


def _tn(run: Any, a: Array, b: Array, c: Array, unused: Array) -> Array:
    options = {"input_gradient": False, "bias_gradient": False}
    return run(ops.affine_backward, b, a, unused, b, into=onto(dW=c), **options).dW


def _nt(run: Any, a: Array, b: Array, c: Array, unused: Array) -> Array:
    return run(ops.affine_backward, a, unused, b, a, bias_gradient=False, into=onto(dx=c)).dx


def _matmul(kind: str, a: Array, b: Array, c: Array, _unused: Array) -> Call:
    """NumPy's product into an existing array; transposed factors are views, as BLAS takes them."""
    left, right = a.T if kind == "TN" else a, b.T if kind == "NT" else b
    return lambda: np.matmul(left, right, out=c)


OPS = {
    "batch_norm": Op(lambda m, n: [(m, n), (m, n), (n,), (n,)], _batch_norm, _torch_batch_norm, _jax_batch_norm),
    "adam": Op(_adam_inputs, _adam, _torch_adam, _jax_adam),
    "softmax": Op(_softmax_inputs, _softmax, _torch_softmax, _jax_softmax),
    "dropout": Op(lambda m, n: [(m, n), (m, n), np.arange(1), np.arange(m)], _dropout, _torch_dropout),
    "affine": Op(lambda m, n: [(m, n), (m, n), (n, n), (n,)], _affine, _torch_affine),
    "check_step": Op(
        lambda n: [(n,), (1,), np.zeros((1, 3, 1))],
        lambda run, gradients, loss, pending: run(ops.check_step, loss, gradients, pending).norm,
        lambda torch, _wrap, gradients, *_ours: lambda: torch.linalg.vector_norm(gradients).reshape(1),
    ),
    "gather": Op(_gather_inputs, _gather, _torch_gather),
    **{
        kind: Op(partial(_product_inputs, kind), ours, numpy=partial(_matmul, kind), only_result=True)
        for kind, ours in (("NN", _nn), ("TN", _tn), ("NT", _nt))
    },
}
