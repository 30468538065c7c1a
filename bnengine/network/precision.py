"""Precision: the dtype of activations and the inputs of matrix products; parameters keep full precision.

| precision | activations and their gradients | matrix products multiply | available on |
|---|---|---|---|
| "highest" | the network's dtype | the arrays unchanged | every backend |
| "tf32" | float32 | float32 rounded to 11 bits, summed in float32 | CuPy, GPUs of compute capability 8.0 on |
| "float16", "bfloat16" | 16 bits | these 16 bits, summed in float32 | CuPy, NumPy, PyTorch |

In 16 bits the parameters, their gradients, the optimizer's state, gamma, beta, biases and losses stay float32,
statistics float64, and kernels compute in float32; weight matrices are multiplied from a copy in 16 bits, `copy16`,
which each update of the parameters writes too. Micikevicius et al. (2018).

"tf32" allows cublasLt to use tensor cores; for a shape or an address that they do not support it multiplies in float32.
References multiply in float32 too, and `explain_dispatch` reports them.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from ..arrays.backend import WITHOUT_BFLOAT16, Backend
from ..arrays.dtypes import is_narrow
from ..errors import InputError
from ..validation import choice

PrecisionName = Literal["highest", "tf32", "bfloat16", "float16"]
PRECISIONS: tuple[PrecisionName, ...] = ("highest", "tf32", "bfloat16", "float16")
TF32_FROM = 80  # compute capability 8.0


class Precision(NamedTuple):
    """The dtype of activations (`storage`), and the precision of matrix products (`products`)."""

    storage: str
    products: str


def resolve_precision(
    precision: Any, dtype: str, backend: Backend, *, where: str = "Sequential", spelled: Callable[[str], str] = str
) -> Precision:
    """Return what a precision means for a network.

    Args:
        precision: a name in `PRECISIONS`.
        dtype, backend: those of the network.
        where: what errors begin with.
        spelled: how errors write the options precision, dtype and backend: as arguments, or as flags.

    Raises:
        InputError: an unknown precision, or one that the dtype or the backend does not support.
    """
    called = spelled("precision")
    owner, highest = f"{where}: {called} {precision!r}", f"{called} 'highest'"
    choice(where, called, precision, PRECISIONS)
    if precision == "highest":
        return Precision(dtype, "highest")
    if dtype != "float32":
        raise InputError(
            f"{owner} needs dtype 'float32', got {dtype!r}. Take {spelled('dtype')} 'float32', or {highest}."
        )
    if is_narrow(precision):
        try:
            backend.dtype(precision)
        except InputError as error:
            known = precision == "bfloat16" and backend.name in WITHOUT_BFLOAT16  # only a package is missing
            reason = error if known else f"{backend.name} has no such dtype."
            raise InputError(f"{owner}: {reason} Otherwise take {highest}.") from error
        return Precision(precision, "highest")
    if not backend.on_gpu:
        raise InputError(
            f"{owner} needs the tensor cores of a GPU, and the backend is {backend.name}. Take {highest}, or "
            f"{spelled('backend')} 'cupy'."
        )
    capability = int(backend.device.compute_capability)
    if capability < TF32_FROM:
        raise InputError(
            f"{owner}: this GPU has compute capability {capability / 10}, and tf32 needs 8.0. Take "
            f"{highest}, or 'float16'."
        )
    return Precision("float32", "tf32")
