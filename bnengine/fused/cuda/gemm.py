"""Matrix products: the one place that says what computes them.

A plan of cublasLt, with algorithm and workspace fixed beforehand; or, where cublasLt cannot be loaded or refuses,
`cupy.matmul(out=)`, which picks its algorithm itself and cannot be captured into a graph.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from ..._typing import Array
from ...errors import BackendError
from ...runtime.memory import Outputs
from . import _load
from ._launch import ready
from .cublaslt import WORKSPACE, Gemm, alignment_of, layout_of, plan_of
from .cublaslt import Product as Described
from .cublaslt_api import Refusal
from .pointwise import summed


@dataclass(frozen=True, slots=True)
class Product:
    """A launch of a plan: out = a b, plus what is there or the bias, as the plan has it."""

    library: ClassVar[str] = "cublasLt"
    plan: Gemm
    workspace: Array

    @property
    def __name__(self) -> str:
        return str(self.plan.product)

    def __call__(self, a: Array, b: Array, bias: Array | None, out: Array) -> None:
        added, stream = None if bias is None else bias.data.ptr, _load.stream()
        self.plan(a.data.ptr, b.data.ptr, out.data.ptr, added, self.workspace.data.ptr, stream)


@dataclass(frozen=True, slots=True)
class Multiplied:
    """A launch of CuPy's product; `why` there is no plan."""

    library: ClassVar[str] = "CuPy"
    why: str

    @property
    def __name__(self) -> str:
        return f"cupy.matmul ({self.why})"

    @property
    def capturable(self) -> bool:
        """Whether a stream may be capturing when it is launched."""
        return False

    def __call__(self, a: Array, b: Array, out: Array) -> None:
        _load.cupy().matmul(a, b, out=out)


def gemm(
    to: Outputs, a: Array, b: Array, out: Array, *, adds: bool = False, bias: Array | None = None,
    precision: str = "highest",
) -> bool:  # fmt: skip
    """Launch out = a b, or with `adds` out = out + a b; two-dimensional, a and b of one dtype, perhaps transposed.

    out has that dtype too, or is float32 where a and b have 16 bits. `bias` is added to every row if a plan does it:
    then, and if there is none, the answer is True. `precision`: "highest", the arrays as they are, or "tf32".
    Without a plan CuPy multiplies the arrays as they are, so "tf32" is a BackendError then.
    """
    plan = _plan(a, b, out, bias, adds, precision)
    if not isinstance(plan, Refusal):
        workspace = _load.workspace(WORKSPACE, out.device.id)
        to.launch(Product(plan, workspace), whole=(a, b, bias), writes=(out,))
        return True
    if precision != "highest":
        raise BackendError(
            f"precision {precision!r}: products cannot be rounded to it here, since {plan.reason}; take precision="
            "'highest'"
        )
    a, b = (ready(to, x, out.dtype) if x.dtype != out.dtype else x for x in (a, b))
    product = to.array("a product", out.shape, out.dtype, out) if adds else out
    to.launch(Multiplied(plan.reason), whole=(a, b), writes=(product,))
    if adds:
        summed(to, out, product, out)
    return bias is None


def _plan(a: Array, b: Array, out: Array, bias: Array | None, adds: bool, precision: str) -> Gemm | Refusal:
    layouts = [layout_of(x.shape, x.strides, x.itemsize) for x in (a, b, out)]
    addresses: list[Any] = [x.data.ptr for x in (a, b, out, bias) if x is not None]
    if None in layouts:
        return Refusal(f"strides {a.strides}, {b.strides} and {out.strides} are none that cublasLt has")
    (turned_a, lda), (turned_b, ldb), (_, ldc) = (layout for layout in layouts if layout is not None)
    product = Described(
        m=int(out.shape[0]), n=int(out.shape[1]), k=int(a.shape[1]), dtype=a.dtype.name, out_dtype=out.dtype.name,
        transpose_a=turned_a, transpose_b=turned_b, accumulate=adds, bias=bias is not None, precision=precision,
        lda=lda, ldb=ldb, ldc=ldc, alignment=alignment_of(*addresses),
    )  # fmt: skip
    return plan_of(product, out.device.id)
