"""Who is compared: an array library, a dtype, and whether its fused versions or the references run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...arrays.dtypes import NARROW, arithmetic_name, is_narrow
from ...errors import InputError
from ...ops import REGISTRY, Op
from ...runtime.modes import Mode
from .draws import Draws

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53} | dict.fromkeys(NARROW, 2.0**-24)  # of what is computed in
DTYPES = ("float32", "float64")


class Variant(NamedTuple):
    """One way to compute: `mode` "auto" takes every fused version that there is.

    `dtype` "float16" or "bfloat16": arrays are stored in it, and a network has it as its precision.
    """

    backend: Backend
    dtype: str
    mode: Mode = "reference"

    @property
    def label(self) -> str:
        """Such as "torch float32", "cupy float32 fused"."""
        return f"{self.backend.name} {self.dtype}{'' if self.mode == 'reference' else ' fused'}"

    @property
    def unit(self) -> float:
        """The unit of rounding u of what is computed in."""
        return UNIT[self.dtype]

    @property
    def network(self) -> dict[str, Any]:
        """How a network is made that computes like this."""
        narrow = {"precision": self.dtype} if is_narrow(self.dtype) else {}
        return {"backend": self.backend, "dtype": arithmetic_name(self.dtype), **narrow}

    def carry(self, value: Any) -> Any:
        """A NumPy array on the library's device, its own memory; anything else as it is."""
        return self.backend.asarray(value, copy=True) if isinstance(value, np.ndarray) else value

    def fetch(self, value: Array) -> Array:
        """A result as a NumPy array of its own."""
        return self.backend.to_numpy(value, copy=True)

    def fused(self, op: Op[Any]) -> str | None:
        """None if a fused version of `op` runs for its examples on this library in this dtype, else why not."""
        example = next(iter(op.contract.examples(Draws(0, op.name), self.dtype)))
        reason = op.resolve("auto", self.carry(example.args[0]))[1]
        return None if reason is None else reason.text


def narrow_dtypes(backend: Backend) -> tuple[list[str], dict[str, str]]:
    """The dtypes of 16 bits that a library has, and why it has not the others."""
    found, without = [], {}
    for dtype in NARROW:
        try:
            backend.dtype(dtype)
        except InputError as error:
            without[dtype] = str(error).partition(": ")[2]
        else:
            found.append(dtype)
    return found, without


def fused_variants(backend: Backend, dtypes: Sequence[str] = DTYPES) -> tuple[list[Variant], dict[str, str]]:
    """The variants with fused versions of a library, and why each op that runs by its reference there does."""
    found, without = [], {}
    for dtype in dtypes:
        variant = Variant(backend, dtype, "auto")
        reasons = {name: variant.fused(op) for name, op in REGISTRY.items()}
        if None in reasons.values():
            found.append(variant)
        without.update({f"{name}, {dtype}": why for name, why in reasons.items() if why is not None})
    return found, without


def wide(value: Any) -> Any:
    """Floating NumPy arrays in float64; anything else as it is."""
    if not isinstance(value, np.ndarray) or not (value.dtype.kind == "f" or is_narrow(value.dtype)):
        return value
    return value.astype(np.float32).astype(np.float64) if is_narrow(value.dtype) else value.astype(np.float64)


def representable(array: Array, dtype: str = "float32") -> Array:
    """The nearest numbers that a dtype has, in float64: the same start for every variant."""
    return wide(np.asarray(array, np.float64).astype(dtype))
