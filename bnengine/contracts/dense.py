"""The contracts of affine and its gradients: examples, error bounds, checks of arguments."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name
from ..errors import InputError
from ..ops import Example
from ..ops.activations import ACTIVATIONS, activate, check_activation
from ..ops.dense import CHAIN, PRODUCTS, AffineGradients, affine, affine_backward
from ..validation import choice
from ._contract import contract
from .activations import activation_bound, sensitivity_of
from .arguments import check_alike, check_floating


def _examples(rng: Any, dtype: str) -> Iterator[Example]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    def bias(size: int) -> Array:
        return rng.standard_normal(size).astype(arithmetic_name(dtype))

    for kind in ACTIVATIONS:
        yield Example(kind, (draw(7, 5), draw(5, 3), bias(3)), {"activation": kind, "slope": 0.2})
    yield Example("no bias", (draw(7, 5), draw(5, 3)))
    yield Example("leading axes", (draw(2, 3, 5), draw(5, 4), bias(4)))
    yield Example("one row, one column", (draw(1, 5), draw(5, 1), bias(1)))
    yield Example("Fortran order", (np.asfortranarray(draw(7, 5)), np.asfortranarray(draw(5, 3)), bias(3)))


def _product_unit(u: float, terms: int, chain: float) -> float:
    """The error of a sum of products, relative to the sum of their sizes.

    10 u, up to 64 terms; that of terms of one sign grows as the square root of the number that is added in a chain.
    """
    return 10 * u * sqrt(max(1.0, min(terms, chain) / 64))


def _bound(
    u: float, x: Array, W: Array, b: Array = None, *,
    activation: str = "identity", slope: float | None = None, precision: str = "highest", between: float = 0.0,
    chain: float = CHAIN,
) -> Array:  # fmt: skip
    """The error of y.

    Args:
        between: the unit of rounding of x W, where it is stored in 16 bits before bias and activation.
        chain: the most products that are added in one chain. Native kernels cut sums; cublasLt and NumPy may not.
    """
    product = x.astype(np.float64) @ W
    z = product + (0 if b is None else b)
    size = np.abs(x) @ np.abs(W) + (0 if b is None else np.abs(b))
    error = (_product_unit(u, len(W), chain) + 2 * PRODUCTS[precision]) * size + between * np.abs(product)
    return activation_bound(u, error, activate(z, activation, slope), activation, slope, z)


def _check(
    x: Array, W: Array, b: Array = None, *,
    activation: str = "identity", slope: float | None = None, precision: str = "highest",
) -> None:  # fmt: skip
    choice("affine", "precision", precision, PRODUCTS)
    check_activation("affine", activation, slope)
    check_floating("affine", x=x, W=W, wide={"b": b})
    if W.ndim != 2 or x.ndim < 2 or x.shape[-1] != W.shape[0]:
        raise InputError(
            f"affine: x must be (..., inputs) and W (inputs, outputs), got x {tuple(x.shape)} and W {tuple(W.shape)}."
        )
    if b is not None and tuple(b.shape) != (W.shape[1],):
        raise InputError(f"affine: b must have shape ({W.shape[1]},) for W {tuple(W.shape)}, got {tuple(b.shape)}.")


contract(affine, examples=_examples, bound=_bound, check=_check)


def _examples_backward(rng: Any, dtype: str) -> Iterator[Example]:
    for label, args, options in _examples(rng, dtype):
        if ACTIVATIONS[options.get("activation", "identity")].reads == "z":
            continue
        y = affine.reference(*args, **options)
        yield Example(label, (rng.standard_normal(y.shape).astype(dtype), args[0], args[1], y), options)
    dy, x, W = np.ones((4, 2), dtype), np.ones((4, 3), dtype), np.ones((3, 2), dtype)
    y, sigmoid = affine.reference(x, W), affine.reference(x, W, activation="sigmoid")
    yield Example("no dx", (dy, x, W, y), {"input_gradient": False})
    yield Example("no db", (dy, x, W, y), {"bias_gradient": False})
    yield Example("no db, sigmoid", (dy, x, W, sigmoid), {"bias_gradient": False, "activation": "sigmoid"})


def _bound_backward(
    u: float, dy: Array, x: Array, W: Array, y: Array, *,
    activation: str = "identity", slope: float | None = None, input_gradient: bool = True, bias_gradient: bool = True,
    precision: str = "highest", between: float = 0.0, chain: float = CHAIN,
) -> AffineGradients:  # fmt: skip
    """The errors of the gradients.

    Args:
        between: the unit of rounding of dz, where it is stored in 16 bits before the products.
        chain: as in `affine`. References add up the rows of dW as native kernels do.
    """
    dz = np.abs(dy) * sensitivity_of(activation, slope).steepest
    flat_x, flat_dz = np.abs(x).reshape(-1, x.shape[-1]), dz.reshape(-1, dz.shape[-1])
    more = 2 * PRODUCTS[precision] + (0.0 if activation == "identity" else between)
    dx = (_product_unit(u, W.shape[1], chain) + more) * dz @ np.abs(W.T) if input_gradient else None
    dW = (_product_unit(u, len(flat_x), chain) + more) * flat_x.T @ flat_dz
    return AffineGradients(dx, dW, 10 * u * flat_dz.sum(0) if bias_gradient else None)


def _check_backward(dy: Array, x: Array, W: Array, y: Array, **options: Any) -> None:
    kind = options.get("activation", "identity")
    choice("affine_backward", "precision", options.get("precision", "highest"), PRODUCTS)
    check_activation("affine_backward", kind, options.get("slope"))
    check_floating("affine_backward", dy=dy, x=x, W=W, y=y)
    check_alike("affine_backward", dy=dy, y=y)
    if W.ndim != 2 or tuple(dy.shape) != (*x.shape[:-1], W.shape[1]) or x.shape[-1] != W.shape[0]:
        shapes = f"dy {tuple(dy.shape)}, x {tuple(x.shape)} and W {tuple(W.shape)}"
        raise InputError(
            f"affine_backward: dy must be (..., outputs), x (..., inputs) and W (inputs, outputs), got {shapes}."
        )
    if ACTIVATIONS[kind].reads == "z":
        raise InputError(
            f"affine_backward: the derivative of {kind} reads z, got y. Apply {kind} as an op after affine."
        )


contract(affine_backward, examples=_examples_backward, bound=_bound_backward, check=_check_backward)
