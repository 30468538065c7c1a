"""affine: y = g(x W + b), and the way back."""

from operator import add
from typing import NamedTuple

from .._typing import Array
from ..namespaces import namespace
from ._op import op
from .pointwise import (
    activate,
    derivative,
)
from .storage import stored, widened

PRODUCTS = {"highest": 0.0, "tf32": 2.0**-11}  # the unit that factors may be rounded to before they are multiplied


@op(family="dense", between=True)
def affine(
    x: Array, W: Array, b: Array | None = None, *,
    activation: str = "identity", slope: float = 0.01, precision: str = "highest",
) -> Array:  # fmt: skip
    """y = g(x W + b); x (..., inputs), W (inputs, outputs), b (outputs,) or None, y (..., outputs), of one dtype.

    With x, W and y in 16 bits, b is float32. `precision` "tf32" lets a fused version round float32 factors to the 11
    bits that tensor cores multiply; the reference multiplies arrays as they are.
    """
    z = widened(x) @ widened(W)
    return stored(activate(z if b is None else z + b, activation, slope), x)


class AffineGradients(NamedTuple):
    """Gradients of `affine`; dx and db are None where they were not asked for."""

    dx: Array | None
    dW: Array
    db: Array | None


@op(family="dense", accumulates={"dx": add, "dW": add, "db": add}, between=True)
def affine_backward(
    dy: Array,
    x: Array,
    W: Array,
    y: Array,
    *,
    activation: str = "identity",
    slope: float = 0.01,
    input_gradient: bool = True,
    bias_gradient: bool = True,
    precision: str = "highest",
) -> AffineGradients:
    """With dz = dy g'(z), told from y = g(z):  dx = dz W^T,  dW = x^T dz,  db = sum dz over the rows.

    Shapes as in `affine`, dy like y; each of them may be added into a destination; dW and db are float32 where the
    arrays are stored in 16 bits. Not for gelu, which y does not tell.
    """
    xp = namespace(dy)
    dz = derivative(widened(dy), widened(y), activation, slope)
    rows_x, rows_dz = xp.reshape(widened(x), (-1, x.shape[-1])), xp.reshape(dz, (-1, dz.shape[-1]))
    db = xp.astype(xp.sum(rows_dz, axis=0, dtype=xp.float64), dz.dtype) if bias_gradient else None
    return AffineGradients(stored(dz @ widened(W).T, x) if input_gradient else None, rows_x.T @ rows_dz, db)
