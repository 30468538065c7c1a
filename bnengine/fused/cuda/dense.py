"""affine and affine_backward: products by `gemm`; bias, activation and their gradients by our kernels."""

import numpy as np

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from .._arguments import Call, extent
from ._launch import Kernel, activation_name, sliced_grid, vector_of, version
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
def affine(to: Outputs, call: Call) -> None:
    """y = x W, with the bias if no activation follows; else bias and activation in place.

    A bias that is wider than y is added by our kernel: cublasLt adds one of y's dtype.
    """
    b, y, plain = call.b, call.y, call.activation == "identity"
    along = b if plain and b is not None and b.dtype == y.dtype else None
    whole = gemm(to, call.x, call.W, y, bias=along, precision=call.precision)
    if plain and whole and along is b:
        return
    rows, outputs = extent(y)
    vector = vector_of(y, outputs, y)
    grid = sliced_grid(y, rows, outputs, vector, sums=False)
    name = vector, activation_name(call.activation)
    BIAS_ACTIVATION(to, call, *name, grid=grid, z=y, rows=rows, outputs=outputs)


@version(ops.affine_backward)
def affine_backward(to: Outputs, call: Call) -> None:
    """dz and db in one pass, where there is either; then dW = x^T dz and dx = dz W^T.

    cublasLt could give db with dW, but adds it to nothing, and promises no order of its sum.
    """
    dy = call.dy
    dz = dy if call.activation == "identity" else to.array("dz", dy.shape, dy.dtype, dy)
    if dz is not dy or call.db is not None:
        _through_bias(to, call, None if dz is dy else dz)
    gemm(to, call.x.T, dz, call.dW, adds=call.adds_dW, precision=call.precision)
    if call.dx is not None:
        gemm(to, dz, call.W.T, call.dx, adds=call.adds_dx, precision=call.precision)


def _through_bias(to: Outputs, call: Call, dz: Array | None) -> None:
    """Launch dz = dy g'(z) and db = sum dz, either of which may be None."""
    rows, outputs = extent(call.dy)
    vector = vector_of(call.dy, outputs, call.dy, call.y, dz)
    grid = sliced_grid(call.dy, rows, outputs, vector, sums=call.db is not None)
    BIAS_ACTIVATION_BACKWARD(
        to, call, vector, activation_name(call.activation), grid=grid, groups=grid[0], dz=dz,
        partial=((1 if call.db is None else grid[1], 1, outputs), np.float64), rows=rows, outputs=outputs,
    )  # fmt: skip
