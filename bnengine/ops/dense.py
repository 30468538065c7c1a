"""affine: y = g(x W + b), and the way back."""

from collections.abc import Iterator
from operator import add
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..namespaces import namespace
from ._op import Example, op
from .pointwise import (
    ACTIVATIONS,
    NEEDS_INPUT,
    activate,
    activation_bound,
    check_activation,
    check_alike,
    check_floating,
    derivative,
)


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    for kind in ACTIVATIONS:
        yield Example(kind, (draw(7, 5), draw(5, 3), draw(3)), {"activation": kind, "slope": 0.2})
    yield Example("no bias", (draw(7, 5), draw(5, 3)))
    yield Example("leading axes", (draw(2, 3, 5), draw(5, 4), draw(4)))
    yield Example("one row, one column", (draw(1, 5), draw(5, 1), draw(1)))
    yield Example("Fortran order", (np.asfortranarray(draw(7, 5)), np.asfortranarray(draw(5, 3)), draw(3)))


def _bound(
    u: float, x: Array, W: Array, b: Array = None, *, activation: str = "identity", slope: float = 0.01
) -> Array:
    size = np.abs(x) @ np.abs(W) + (0 if b is None else np.abs(b))
    z = x.astype(np.float64) @ W + (0 if b is None else b)
    return activation_bound(u, 10 * u * size, activate(z, activation, slope), activation, slope, z)


def _check(x: Array, W: Array, b: Array = None, *, activation: str = "identity", slope: float = 0.01) -> None:
    check_activation("affine", activation, slope)
    check_floating("affine", x=x, W=W, b=b)
    if W.ndim != 2 or x.ndim < 2 or x.shape[-1] != W.shape[0]:
        raise InputError(
            f"affine: x {tuple(x.shape)} and W {tuple(W.shape)} do not fit; x (..., inputs), W (inputs, outputs)"
        )
    if b is not None and tuple(b.shape) != (W.shape[1],):
        raise InputError(f"affine: b has shape {tuple(b.shape)}; W {tuple(W.shape)} needs ({W.shape[1]},)")


@op("bnengine.fused.cuda.dense:affine", examples=_examples, bound=_bound, check=_check)
def affine(x: Array, W: Array, b: Array | None = None, *, activation: str = "identity", slope: float = 0.01) -> Array:
    """y = g(x W + b); x (..., inputs), W (inputs, outputs), b (outputs,) or None, y (..., outputs), of one dtype."""
    z = x @ W
    return activate(z if b is None else z + b, activation, slope)


class AffineGradients(NamedTuple):
    """Gradients of `affine`; dx is None where it was not asked for."""

    dx: Array | None
    dW: Array
    db: Array


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for label, args, options in _examples(rng, dtype):
        if options.get("activation") in NEEDS_INPUT:
            continue
        y = affine.reference(*args, **options)
        yield Example(label, (rng.standard_normal(y.shape).astype(dtype), args[0], args[1], y), options)
    dy, x, W = np.ones((4, 2), dtype), np.ones((4, 3), dtype), np.ones((3, 2), dtype)
    yield Example("no dx", (dy, x, W, x @ W), {"input_gradient": False})


def _bound_backward(u: float, dy: Array, x: Array, W: Array, y: Array, **options: Any) -> AffineGradients:
    dz = np.abs(dy) * max(1.2, options.get("slope", 0.01))
    flat_x, flat_dz = np.abs(x).reshape(-1, x.shape[-1]), dz.reshape(-1, dz.shape[-1])
    dx = 10 * u * dz @ np.abs(W.T) if options.get("input_gradient", True) else None
    return AffineGradients(dx, 10 * u * flat_x.T @ flat_dz, 10 * u * flat_dz.sum(0))


def _check_backward(dy: Array, x: Array, W: Array, y: Array, **options: Any) -> None:
    kind = options.get("activation", "identity")
    check_activation("affine_backward", kind, options.get("slope", 0.01))
    check_floating("affine_backward", dy=dy, x=x, W=W, y=y)
    check_alike("affine_backward", dy=dy, y=y)
    if W.ndim != 2 or tuple(dy.shape) != (*x.shape[:-1], W.shape[1]) or x.shape[-1] != W.shape[0]:
        shapes = f"dy {tuple(dy.shape)}, x {tuple(x.shape)} and W {tuple(W.shape)}"
        raise InputError(
            f"affine_backward: {shapes} do not fit; dy (..., outputs), x (..., inputs), W (inputs, outputs)"
        )
    if kind in NEEDS_INPUT:
        raise InputError(f"affine_backward: {kind} cannot be told from y; apply it with `activation` behind an affine")


@op(
    "bnengine.fused.cuda.dense:affine_backward",
    examples=_examples_backward,
    bound=_bound_backward,
    accumulates={"dx": add, "dW": add, "db": add},
    check=_check_backward,
)
def affine_backward(
    dy: Array,
    x: Array,
    W: Array,
    y: Array,
    *,
    activation: str = "identity",
    slope: float = 0.01,
    input_gradient: bool = True,
) -> AffineGradients:
    """With dz = dy g'(z), told from y = g(z):  dx = dz W^T,  dW = x^T dz,  db = sum dz over the rows.

    Shapes as in `affine`, dy like y; each of them may be added into a destination. Not for gelu, which y does not tell.
    """
    xp = namespace(dy)
    dz = derivative(dy, y, activation, slope)
    rows_x, rows_dz = xp.reshape(x, (-1, x.shape[-1])), xp.reshape(dz, (-1, dz.shape[-1]))
    db = xp.astype(xp.sum(rows_dz, axis=0, dtype=xp.float64), dy.dtype)
    return AffineGradients(dz @ W.T if input_gradient else None, rows_x.T @ rows_dz, db)
