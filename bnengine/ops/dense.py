"""A dense layer, y = g(x W + b), forward and backward."""

from operator import add
from typing import NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate, derivative
from .statistics import sum_rows

PRODUCTS = {"highest": 0.0, "tf32": 2.0**-11}  # the unit of rounding of factors before they are multiplied
CHAIN = 256  # rows, at most, that are added up in the dtype of the product


@op(family="dense", between=True)
def affine(
    x: Array, W: Array, b: Array | None = None, *,
    activation: str = "identity", slope: float | None = None, precision: str = "highest",
) -> Array:  # fmt: skip
    """Apply a dense layer: y = g(x W + b).

    Args:
        x: (..., inputs), floating.
        W: (inputs, outputs), of the dtype of x.
        b: (outputs,), float32 where x has 16 bits, else as x; None for 0.
        slope: the activation's parameter; None for its default.
        precision: "tf32" lets a fused version round float32 factors to the 11 bits that tensor cores multiply. The
            reference multiplies arrays as they are.

    Returns:
        y, (..., outputs), of the dtype of x.
    """
    z = widened(x) @ widened(W)
    return stored(activate(z if b is None else z + b, activation, slope), x)


class AffineGradients(NamedTuple):
    """Gradients of `affine`; dx and db are None where `input_gradient` or `bias_gradient` is False."""

    dx: Array | None
    dW: Array
    db: Array | None


@op(family="dense", accumulates={"dx": add, "dW": add, "db": add}, between=True)
def affine_backward(
    dy: Array, x: Array, W: Array, y: Array, *,
    activation: str = "identity", slope: float | None = None, input_gradient: bool = True, bias_gradient: bool = True,
    precision: str = "highest",
) -> AffineGradients:  # fmt: skip
    """Gradients of `affine`. With dz = dy g'(z):  dx = dz W^T,  dW = x^T dz,  db = sum of dz over the rows.

    Not for an activation whose derivative reads z, since g'(z) is computed from y = g(z).

    Args:
        dy, y: (..., outputs), the gradient at y and the output of `affine`, whose arguments the others are.
        input_gradient, bias_gradient: whether to compute dx and db.

    Returns:
        dx like x, dW (inputs, outputs), db (outputs,); dW and db are float32 where x has 16 bits.
    """
    xp = namespace(dy)
    dz = derivative(widened(dy), widened(y), activation, slope)
    rows_x, rows_dz = xp.reshape(widened(x), (-1, x.shape[-1])), xp.reshape(dz, (-1, dz.shape[-1]))
    dx = stored(dz @ widened(W).T, x) if input_gradient else None
    return AffineGradients(dx, product_over_rows(rows_x, rows_dz), sum_rows(rows_dz) if bias_gradient else None)


def product_over_rows(a: Array, b: Array) -> Array:
    """a^T b for a (rows, m) and b (rows, n), in the dtype of a.

    Products of at most `CHAIN` rows are added in float64, so that the error does not grow with the number of rows.
    """
    xp = namespace(a)
    if a.shape[0] <= CHAIN:
        return a.T @ b
    total = 0.0
    for begin in range(0, a.shape[0], CHAIN):
        rows = slice(begin, min(begin + CHAIN, a.shape[0]))
        total = total + xp.astype(a[rows, :].T @ b[rows, :], xp.float64)
    return xp.astype(total, a.dtype)
