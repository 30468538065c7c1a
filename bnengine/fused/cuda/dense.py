"""affine and affine_backward: the product apart; bias, activation and their gradients by our own kernels."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...ops.activations import slope_of
from ...ops.dense import AffineGradients
from ...runtime.memory import Outputs
from .._launch import absent, extent
from ._launch import (
    Kernel,
    activation_name,
    arithmetic,
    output,
    ready,
    sliced_grid,
    vector_of,
    version,
)
from ._launch import storage as storage_of
from .gemm import gemm

FILE = "dense.cu"
BIAS_ACTIVATION = Kernel(
    "bias_activation", file=FILE, whole="b:wide", reads="z", writes="y", integers="rows outputs", reals="slope"
)
BIAS_ACTIVATION_BACKWARD = Kernel(
    "bias_activation_backward", file=FILE, reads="dy y", writes="dz db:wide", scratch="partial:double",
    counters="arrivals", integers="rows outputs", reals="slope", flags="adds_db",
)  # fmt: skip


@version(ops.affine)
def affine(
    to: Outputs, x: Array, W: Array, b: Array | None, activation: str, slope: float | None, precision: str
) -> Array:
    """y = x W, with the bias if nothing comes behind it; else bias and activation where it lies.

    A bias that is wider than y is left to our own kernel: cublasLt adds one of y's dtype.
    """
    x = ready(to, x)
    W, b = ready(to, W, x.dtype), ready(to, b, arithmetic(x))
    y = output(to, "out", (*x.shape[:-1], W.shape[1]), x.dtype, x)
    flat, plain = y.reshape(-1, y.shape[-1]), activation == "identity"
    along = b if plain and b is not None and b.dtype == y.dtype else None
    whole = gemm(to, x.reshape(-1, x.shape[-1]), W, flat, bias=along, precision=precision)
    if plain and whole and along is b:
        return y
    rows, outputs = extent(y)
    vector = vector_of(y, outputs, y)
    name = storage_of(y), vector, activation_name(activation)
    grid, slope = sliced_grid(y, rows, outputs, vector, sums=False), slope_of(activation, slope)
    BIAS_ACTIVATION(to, y, *name, grid=grid, b=b, z=flat, y=flat, rows=rows, outputs=outputs, slope=slope)
    return y


@version(ops.affine_backward)
def affine_backward(
    to: Outputs, dy: Array, x: Array, W: Array, y: Array, activation: str, slope: float | None,
    input_gradient: bool, bias_gradient: bool, precision: str
) -> AffineGradients:  # fmt: skip
    """dz and db in one pass, where there is either; then dW = x^T dz and dx = dz W^T.

    cublasLt could give db beside dW, but adds it to nothing, and promises no order of its sum.
    """
    x = ready(to, x)
    dy, W = ready(to, dy, x.dtype), ready(to, W, x.dtype)
    outputs = int(dy.shape[-1])
    dW = output(to, "dW", W.shape, arithmetic(x), x)
    db = output(to, "db", (outputs,), arithmetic(x), x, there=bias_gradient)
    dz = dy
    if activation != "identity":
        y, dz = ready(to, y, x.dtype), to.array("dz", dy.shape, dy.dtype, dy)
    if dz is not dy or db is not None:
        _through_bias(to, dy, None if dz is dy else y, None if dz is dy else dz, db, activation, slope)
    rows_dz = dz.reshape(-1, outputs)
    gemm(to, x.reshape(-1, x.shape[-1]).T, rows_dz, dW, adds=to.adds("dW"), precision=precision)
    if not input_gradient:
        absent(to, "dx")
        return AffineGradients(None, dW, db)
    dx = output(to, "dx", x.shape, x.dtype, x)
    gemm(to, rows_dz, W.T, dx.reshape(-1, x.shape[-1]), adds=to.adds("dx"), precision=precision)
    return AffineGradients(dx, dW, db)


def _through_bias(
    to: Outputs, dy: Array, y: Array | None, dz: Array | None, db: Array | None, activation: str, slope: float | None
) -> None:
    """Launch dz = dy g'(z) and db = sum dz, either of which may be None."""
    rows, outputs = extent(dy)
    vector = vector_of(dy, outputs, dy, y, dz)
    grid = sliced_grid(dy, rows, outputs, vector, sums=db is not None)
    BIAS_ACTIVATION_BACKWARD(
        to, dy, storage_of(dy), vector, activation_name(activation), grid=grid, groups=grid[0], dy=dy, y=y, dz=dz,
        db=db, partial=((1 if db is None else grid[1], 1, outputs), np.float64), rows=rows, outputs=outputs,
        slope=slope_of(activation, slope), adds_db=to.adds("db"),
    )  # fmt: skip
