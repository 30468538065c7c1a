"""A dense layer, y = g(x W + b), forward and backward."""

from operator import add
from typing import NamedTuple

from .._typing import Array
from ..arrays.dtypes import stored, widened
from ..arrays.namespaces import namespace
from ..runtime.op import op
from .activations import activate, derivative
from .statistics import sum_rows

PRODUCTS = {"highest": 0.0, "tf32": 2.0**-11}  # the unit that factors may be rounded to before they are multiplied


@op(family="dense", between=True)
def affine(
    x: Array, W: Array, b: Array | None = None, *,
    activation: str = "identity", slope: float | None = None, precision: str = "highest",
) -> Array:  # fmt: skip
    """y = g(x W + b); x (..., inputs), W (inputs, outputs), b (outputs,) or None, y (..., outputs), of one dtype.

    With x, W and y in 16 bits, b is float32. `precision` "tf32" lets a fused version round float32 factors to the 11
    bits that tensor cores multiply; the reference multiplies arrays as they are.
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
    """With dz = dy g'(z):  dx = dz W^T,  dW = x^T dz,  db = sum dz over the rows.

    Shapes as in `affine`, dy like y; dW and db are float32 where the arrays are stored in 16 bits. g'(z) is computed
    from y = g(z), so this is not for an activation whose derivative reads z.
    """
    xp = namespace(dy)
    dz = derivative(widened(dy), widened(y), activation, slope)
    rows_x, rows_dz = xp.reshape(widened(x), (-1, x.shape[-1])), xp.reshape(dz, (-1, dz.shape[-1]))
    dx = stored(dz @ widened(W).T, x) if input_gradient else None
    return AffineGradients(dx, rows_x.T @ rows_dz, sum_rows(rows_dz) if bias_gradient else None)
