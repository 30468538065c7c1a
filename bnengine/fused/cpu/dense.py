"""affine and affine_backward: products with the bias in them, then the activation on the same columns.

A precision only permits rounding: these products multiply the arrays as they are, whatever it says.
"""

from typing import Any

from ... import ops
from ..._typing import Array
from ...runtime.memory import Outputs
from ...runtime.plan import COLUMNS, ROWS
from .._arguments import Call
from ._launch import LINE, MANY_BLOCKS, MOST_BLOCKS, Cut, Kernel, blocks_of_columns, cut, evenly, version
from .pointwise import activated, derived

SCRATCH = 3 << 20  # bytes: kScratch of kernels/cpu/gemm.cpp
ROW_PANEL = 512  # bytes of a row that is the only one, in a block: eight vectors, kRowVectors of kernels/cpu/tile.h
LEAST_ROWS = 8  # that a product counts as: reading W takes as long as multiplying it by 8 rows
BLOCK_ROWS = 192  # of a block, at least: they share a packed part of W
FEW_BLOCK_ROWS = 8  # of a narrow result, whose W is packed soon: kTileRows of kernels/cpu/tile.h
NARROW = 512  # bytes of a row of the result
BLOCK_WORK = 1 << 17  # multiplications, at least, of a block

_SIZES = "m n k lda ldb ldc"
_OF_COLUMNS = {"writes": "c sums", "integers": _SIZES, "flags": "adds adds_sums"}
_OF_ROWS = {"whole": "b bias", "reads": "a", "writes": "c", "integers": _SIZES, "flags": "adds"}

GEMM_NN = Kernel("gemm_nn", whole="a", reads="b bias", **_OF_COLUMNS)
GEMM_TN = Kernel("gemm_tn", whole="a", reads="b bias", **_OF_COLUMNS)
GEMM_NT = Kernel("gemm_nt", whole="a b bias", **_OF_COLUMNS)
GEMM_NN_ROWS, GEMM_TN_ROWS, GEMM_NT_ROWS = (
    Kernel(name, **_OF_ROWS) for name in ("gemm_nn_rows", "gemm_tn_rows", "gemm_nt_rows")
)
COLUMN_SUMS = Kernel("column_sums", reads="x", writes="out", integers="rows stride", flags="adds")


def _along(m: int, n: int, k: int, itemsize: int, *, ends: bool = False) -> Cut:
    """How a product (m, k) (k, n) is cut: as what follows on its result; `ends` if that is no batch normalization."""
    work = max(1, max(m, LEAST_ROWS) * n * k // BLOCK_WORK)
    following = cut((m, n), itemsize)
    if following.by_columns and not (ends and n * itemsize <= NARROW):
        unit, least = (ROW_PANEL // itemsize, 1) if m == 1 else (following.unit, 2)
        return Cut(COLUMNS, n, unit, min(blocks_of_columns(n, unit, least), evenly(work)))
    unit, most = (FEW_BLOCK_ROWS, MANY_BLOCKS) if following.by_columns else (BLOCK_ROWS, MOST_BLOCKS)
    return Cut(ROWS, m, unit, evenly(min(-(-m // unit), work, most)))


@version(ops.affine)
def affine(to: Outputs, call: Call) -> None:
    """y = x W + b, then g in place."""
    (m, k), n = call.x.shape, call.W.shape[1]
    along = _along(m, n, k, call.x.itemsize, ends=call.b is not None)
    _product(
        to, (GEMM_NN, GEMM_NN_ROWS), along, a=call.x, b=call.W, bias=call.b, c=call.y, m=m, n=n, k=k, lda=k, ldb=n,
        ldc=n, adds=False,
    )  # fmt: skip
    if call.activation != "identity":
        activated(to, call.y, call.y, call.activation, call.slope)


@version(ops.affine_backward)
def affine_backward(to: Outputs, call: Call) -> None:
    """dz; dW = x^T dz with db = sum dz on the same columns; dx = dz W^T."""
    dz = call.dy
    if call.activation != "identity":
        dz = to.array("dz", dz.shape, call.x.dtype, call.x)
        derived(to, call.dy, call.y, dz, call.activation, call.slope)
    _weight_gradients(to, call, dz)
    if call.dx is not None:  # a block of columns of dx needs rows of W, so W goes in whole
        (m, k), n = dz.shape, call.dx.shape[1]
        _product(
            to, (GEMM_NT, GEMM_NT_ROWS), _along(m, n, k, dz.itemsize), a=dz, b=call.W, bias=None, c=call.dx, m=m, n=n,
            k=k, lda=k, ldb=k, ldc=n, adds=call.adds_dx,
        )  # fmt: skip


def _product(to: Outputs, kernels: tuple[Kernel, Kernel], along: Cut, *, a: Array, **given: Any) -> None:
    """Launch a product, by the first of these kernels where it is cut by columns, else by the second."""
    if along.by_columns:
        kernels[0](to, a, along=along, scratch=SCRATCH, a=a, **given, sums=None, adds_sums=False)
    else:
        kernels[1](to, a, along=along, scratch=SCRATCH, a=a, **given)


def _weight_gradients(to: Outputs, call: Call, dz: Array) -> None:
    """Launch dW = x^T dz and db = sum dz, by columns: each block sums over all rows.

    Those are columns of dz; with few outputs and a bias columns of x, rows of dW: so it meets the layer before.
    """
    x, dW, db, (rows, inputs), outputs = call.x, call.dW, call.db, call.x.shape, dz.shape[1]
    few, unit = db is not None and outputs * x.itemsize <= NARROW, LINE // x.itemsize
    columns = inputs if few else outputs
    blocks = min(blocks_of_columns(columns, unit), evenly(rows * inputs * outputs // BLOCK_WORK))
    given: dict[str, Any] = {
        "along": Cut(COLUMNS, columns, unit, blocks), "scratch": SCRATCH, "a": x, "b": dz, "bias": None, "m": inputs,
        "n": outputs, "k": rows, "lda": inputs, "ldb": outputs, "ldc": outputs, "adds": call.adds_dW,
    }  # fmt: skip
    if few:
        COLUMN_SUMS(to, x, along=Cut(None, outputs), x=dz, out=db, rows=rows, stride=outputs, adds=call.adds_db)
        GEMM_TN_ROWS(to, x, **given, c=dW.T)
    else:
        GEMM_TN(to, x, **given, c=dW, sums=db, adds_sums=call.adds_db)
