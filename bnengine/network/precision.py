"""Precision: what activations are stored in, and what products multiply, beside parameters in full precision.

| precision | activations, their gradients | products multiply | for |
|---|---|---|---|
| "highest" | the network's dtype | the arrays as they are | every backend |
| "tf32" | float32 | float32 rounded to 11 bits, summed in float32 | CuPy, GPUs of compute capability 8.0 on |
| "float16", "bfloat16" | 16 bits | these 16 bits, summed in float32 | CuPy, NumPy, PyTorch |

In 16 bits the parameters, their gradients, the optimizer's state, gamma, beta, biases and losses stay float32,
statistics float64, and kernels compute in float32; weight matrices are multiplied from a copy in 16 bits, the copy16,
which each update of the parameters writes too. Micikevicius et al. (2018).

"tf32" allows cublasLt its tensor cores; for a shape or an address that these do not take it multiplies in float32.
References multiply arrays as they are, so where a network in "tf32" runs one, its products are float32, and
`explain_dispatch` says so.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ..arrays.backend import Backend
from ..arrays.dtypes import is_narrow
from ..errors import InputError

PrecisionName = Literal["highest", "tf32", "bfloat16", "float16"]
PRECISIONS: tuple[PrecisionName, ...] = ("highest", "tf32", "bfloat16", "float16")
TF32_FROM = 80  # compute capability 8.0


class Precision(NamedTuple):
    """The dtype that activations are stored in, and the precision that products are asked for."""

    storage: str
    products: str


def settle(
    precision: Any, dtype: str, backend: Backend, *, where: str = "Sequential", spelled: Callable[[str], str] = str
) -> Precision:
    """What a precision means for a network.

    Args:
        precision: a name in `PRECISIONS`.
        dtype: the network's.
        backend: the network's.
        where: what errors begin with.
        spelled: how errors spell the options precision, dtype and backend: as arguments, or as flags.

    Raises:
        InputError: a precision that the dtype or the backend does not have.
    """
    called = spelled("precision")
    owner, highest = f"{where}: {called} {precision!r}", f"{called} 'highest'"
    if precision not in PRECISIONS:
        raise InputError(f"{owner}: there is none of that name; choose one of {', '.join(map(repr, PRECISIONS))}")
    if precision == "highest":
        return Precision(dtype, "highest")
    if dtype != "float32":
        raise InputError(f"{owner} does not go with dtype {dtype!r}; take {spelled('dtype')} 'float32', or {highest}")
    if is_narrow(precision):
        try:
            backend.dtype(precision)
        except InputError as error:
            known = precision == "bfloat16" and backend.name in ("numpy", "cupy")  # but a package is missing
            reason = str(error) if known else f"{backend.name} has no such dtype"
            raise InputError(f"{owner}: {reason}; or take {highest}") from error
        return Precision(precision, "highest")
    if not backend.on_gpu:
        raise InputError(
            f"{owner} is how tensor cores of a GPU multiply, and the backend {backend.name} multiplies arrays as they "
            f"are; take {highest}, or {spelled('backend')} 'cupy'"
        )
    capability = int(backend.device.compute_capability)
    if capability < TF32_FROM:
        raise InputError(
            f"{owner}: this GPU has compute capability {capability / 10}, and tf32 begins at 8.0; take "
            f"{highest}, or 'float16'"
        )
    return Precision("float32", "tf32")
