"""affine and affine_backward: products of our own, the bias in them, the activation behind on the same columns.

A precision lets a product be rounded, and asks for nothing: here products are those of the arrays, whatever it says.
"""

from ... import ops
from ..._typing import Array
from ...ops.dense import AffineGradients
from ...runtime.memory import Outputs
from ...runtime.plan import COLUMNS, ROWS
from .._launch import absent, extent
from ._launch import (
    LINE,
    MANY_BLOCKS,
    MOST_BLOCKS,
    Cut,
    blocks_of_columns,
    cut,
    evenly,
    flat,
    kernel,
    output,
    ready,
    version,
)
from .pointwise import activated, derived

SCRATCH = 3 << 20  # bytes: kScratch of kernels/cpu/gemm.cpp
ROW_PANEL = 512  # bytes of a row that is the only one, in a block: eight vectors, kRowVectors of kernels/cpu/tile.h
LEAST_ROWS = 8  # that a product counts as: to bring W in takes as long as to multiply it by so many
BLOCK_ROWS = 192  # of a block, at least: so many share what is packed of W
FEW_BLOCK_ROWS = 8  # of a narrow result, whose W is packed soon: kTileRows of kernels/cpu/tile.h
NARROW = 512  # bytes of a row of the result
BLOCK_WORK = 1 << 17  # multiplications, at least, of a block


def _along(m: int, n: int, k: int, itemsize: int, *, ends: bool = False) -> Cut:
    """How a product (m, k) (k, n) is cut: as what follows on its result; `ends` if that is no batch normalisation."""
    work = max(1, max(m, LEAST_ROWS) * n * k // BLOCK_WORK)
    following = cut((m, n), itemsize)
    if following.by_columns and not (ends and n * itemsize <= NARROW):
        unit, least = (ROW_PANEL // itemsize, 1) if m == 1 else (following.unit, 2)
        return Cut(COLUMNS, n, unit, min(blocks_of_columns(n, unit, least), evenly(work)))
    unit, most = (FEW_BLOCK_ROWS, MANY_BLOCKS) if following.by_columns else (BLOCK_ROWS, MOST_BLOCKS)
    return Cut(ROWS, m, unit, evenly(min(-(-m // unit), work, most)))


@version(ops.affine)
def affine(to: Outputs, x: Array, W: Array, b: Array | None, activation: str, slope: float | None) -> Array:
    """y = x W + b, then g where it lies."""
    x = ready(to, x)
    W, b = ready(to, W, x.dtype), ready(to, b, x.dtype)
    y = output(to, "out", (*x.shape[:-1], W.shape[1]), x.dtype, x)
    rows_x, rows_y = flat(x), flat(y)
    (m, k), n = extent(x), W.shape[1]
    along, sizes = _along(m, n, k, x.itemsize, ends=b is not None), (m, n, k, k, n, n, False)
    if along.by_columns:
        run = kernel("gemm_nn", x, cut=along, scratch=SCRATCH)
        to.launch(run, whole=(rows_x,), reads=(W, b), writes=(rows_y, None), scalars=(*sizes, False), split=COLUMNS)
    else:
        run = kernel("gemm_nn_rows", x, cut=along, scratch=SCRATCH)
        to.launch(run, whole=(W, b), reads=(rows_x,), writes=(rows_y,), scalars=sizes, split=ROWS)
    if activation != "identity":
        activated(to, rows_y, rows_y, activation, slope)
    return y


@version(ops.affine_backward)
def affine_backward(
    to: Outputs, dy: Array, x: Array, W: Array, y: Array, activation: str, slope: float | None,
    input_gradient: bool, bias_gradient: bool
) -> AffineGradients:  # fmt: skip
    """dz; dW = x^T dz with db = sum dz on the same columns; dx = dz W^T."""
    x = ready(to, x)
    dy, W = ready(to, dy, x.dtype), ready(to, W, x.dtype)
    rows_x, dz = flat(x), flat(dy)
    if activation != "identity":
        rows_y, rows_dy, dz = flat(ready(to, y, x.dtype)), dz, to.array("dz", extent(dy), x.dtype, x)
        derived(to, rows_dy, None, rows_y, dz, activation, slope)
    dW = output(to, "dW", W.shape, x.dtype, x)
    db = output(to, "db", W.shape[1:], x.dtype, x, there=bias_gradient)
    if bias_gradient and W.shape[1] * W.itemsize <= NARROW:
        _few_weight_gradients(to, rows_x, dz, dW, db)
    else:
        _weight_gradients(to, rows_x, dz, dW, db)
    if not input_gradient:
        absent(to, "dx")
        return AffineGradients(None, dW, db)
    dx = output(to, "dx", x.shape, x.dtype, x)
    _input_gradient(to, dz, W, flat(dx))
    return AffineGradients(dx, dW, db)


def _weight_gradients(to: Outputs, x: Array, dz: Array, dW: Array, db: Array | None) -> None:
    """Launch dW = x^T dz and db = sum dz, by columns always: a sum over the rows is one chain."""
    (rows, inputs), outputs = x.shape, dz.shape[1]
    scalars = (inputs, outputs, rows, inputs, outputs, outputs, to.adds("dW"), to.adds("db"))
    run = kernel("gemm_tn", x, cut=_by_columns(outputs, rows * inputs * outputs, x.itemsize), scratch=SCRATCH)
    to.launch(run, whole=(x,), reads=(dz, None), writes=(dW, db), scalars=scalars, split=COLUMNS)


def _few_weight_gradients(to: Outputs, x: Array, dz: Array, dW: Array, db: Array) -> None:
    """Launch the same where outputs are few, by columns of x, which are rows of dW: so it meets the layer before."""
    (rows, inputs), outputs = x.shape, dz.shape[1]
    to.launch(kernel("column_sums", x, cut=Cut(None, outputs)), reads=(dz,), writes=(db,),
              scalars=(rows, outputs, to.adds("db")))  # fmt: skip
    scalars = (inputs, outputs, rows, inputs, outputs, outputs, to.adds("dW"))
    run = kernel("gemm_tn_rows", x, cut=_by_columns(inputs, rows * inputs * outputs, x.itemsize), scratch=SCRATCH)
    to.launch(run, whole=(dz, None), reads=(x,), writes=(dW.T,), scalars=scalars, split=COLUMNS)


def _by_columns(columns: int, work: int, itemsize: int) -> Cut:
    unit = LINE // itemsize
    return Cut(COLUMNS, columns, unit, min(blocks_of_columns(columns, unit), evenly(work // BLOCK_WORK)))


def _input_gradient(to: Outputs, dz: Array, W: Array, dx: Array) -> None:
    """Launch dx = dz W^T. A block of columns of dx needs rows of W, so W goes in whole."""
    (m, k), n = dz.shape, dx.shape[1]
    along, sizes = _along(m, n, k, dz.itemsize), (m, n, k, k, k, n, to.adds("dx"))
    if along.by_columns:
        run = kernel("gemm_nt", dz, cut=along, scratch=SCRATCH)
        to.launch(run, whole=(dz, W, None), writes=(dx, None), scalars=(*sizes, False), split=COLUMNS)
    else:
        run = kernel("gemm_nt_rows", dz, cut=along, scratch=SCRATCH)
        to.launch(run, whole=(W, None), reads=(dz,), writes=(dx,), scalars=sizes, split=ROWS)
