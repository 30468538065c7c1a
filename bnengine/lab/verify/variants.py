"""A variant: an array library, a dtype, and whether fused versions or references run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...arrays.backend import Backend
from ...arrays.dtypes import NARROW, arithmetic_name, is_narrow
from ...errors import InputError
from ...ops import REGISTRY, Op
from ...runtime.modes import Mode
from ...runtime.reasons import Reason
from .draws import Draws

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53} | dict.fromkeys(NARROW, 2.0**-24)  # of the arithmetic
DTYPES = ("float32", "float64")


class Variant(NamedTuple):
    """One way to compute: `mode` "auto" takes every fused version that exists.

    `dtype` "float16" or "bfloat16" is the storage of arrays, and the precision of a network.
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
        """The unit of rounding u of the arithmetic."""
        return UNIT[self.dtype]

    @property
    def network(self) -> dict[str, Any]:
        """The options of a network that computes like this."""
        narrow = {"precision": self.dtype} if is_narrow(self.dtype) else {}
        return {"backend": self.backend, "dtype": arithmetic_name(self.dtype), **narrow}

    def carry(self, value: Any) -> Any:
        """A NumPy array copied to the library's device; any other value unchanged."""
        return self.backend.asarray(value, copy=True) if isinstance(value, np.ndarray) else value

    def fetch(self, value: Array) -> Array:
        """A result copied into a NumPy array."""
        return self.backend.to_numpy(value, copy=True)

    def fused(self, op: Op[Any]) -> Reason | None:
        """Why no fused version of `op` runs for its examples on this library in this dtype; None if one does."""
        example = next(iter(op.contract.examples(Draws(0, op.name), self.dtype)))
        return op.resolve("auto", self.carry(example.args[0]))[1]


def narrow_dtypes(backend: Backend) -> tuple[list[str], dict[str, str]]:
    """The 16-bit dtypes of a library, and why it lacks the others."""
    names, without = [], {}
    for dtype in NARROW:
        try:
            backend.dtype(dtype)
        except InputError as error:
            without[dtype] = str(error)
        else:
            names.append(dtype)
    return names, without


def fused_variants(backend: Backend, dtypes: Sequence[str] = DTYPES) -> tuple[list[Variant], dict[str, Reason]]:
    """The variants of a library with fused versions, and why the other ops run their references there."""
    variants, without = [], {}
    for dtype in dtypes:
        variant = Variant(backend, dtype, "auto")
        reasons = {name: variant.fused(op) for name, op in REGISTRY.items()}
        if None in reasons.values():
            variants.append(variant)
        without.update({f"{name}, {dtype}": why for name, why in reasons.items() if why is not None})
    return variants, without


def wide(value: Any) -> Any:
    """Floating-point NumPy arrays in float64; any other value unchanged."""
    if not isinstance(value, np.ndarray) or not (value.dtype.kind == "f" or is_narrow(value.dtype)):
        return value
    return value.astype(np.float32).astype(np.float64) if is_narrow(value.dtype) else value.astype(np.float64)


def representable(array: Array, dtype: str = "float32") -> Array:
    """The nearest numbers of a dtype, in float64: a start that every variant represents exactly."""
    return wide(np.asarray(array, np.float64).astype(dtype))
