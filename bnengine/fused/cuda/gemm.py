"""Matrix products: the one place that says what computes them.

Today that is `cupy.matmul(out=)`: cuBLAS at CuPy's precision. It picks its algorithm itself and cannot be captured into
a graph, so a plan with products in it is replayed launch by launch.
"""

from ..._typing import Array
from ...memory import Outputs
from . import _load
from .pointwise import summed


def gemm(to: Outputs, a: Array, b: Array, out: Array, *, adds: bool = False) -> None:
    """Launch out = a b, or with `adds` out = out + a b; two-dimensional, of one dtype, a and b perhaps transposed."""
    if not adds:
        to.launch(multiplied, whole=(a, b), writes=(out,))
        return
    product = to.array("a product", out.shape, out.dtype, out)
    to.launch(multiplied, whole=(a, b), writes=(product,))
    summed(to, out, product, out)


def multiplied(a: Array, b: Array, out: Array) -> None:
    """A launch of cuBLAS through CuPy."""
    _load.cupy().matmul(a, b, out=out)
