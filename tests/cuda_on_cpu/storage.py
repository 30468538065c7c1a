"""The types that kernels store, as NumPy arrays: bfloat16, which NumPy lacks, as two opaque bytes ("V2")."""

from typing import Any, NamedTuple

import numpy as np

BFLOAT16 = np.dtype("V2")


class Storage(NamedTuple):
    """A storage type: its name in CUDA, its dtype, that of its arithmetic, and the elements in 16 bytes."""

    name: str
    dtype: np.dtype[Any]
    arithmetic: np.dtype[Any]
    vector: int
    bits: int  # of the significand, with the leading one
    least: float  # the smallest subnormal

    @property
    def unit(self) -> float:
        """The unit of rounding of the arithmetic."""
        return 2.0**-24 if self.arithmetic == np.float32 else 2.0**-53

    @property
    def wide_name(self) -> str:
        """CUDA's name for the arithmetic."""
        return "float" if self.arithmetic == np.float32 else "double"

    def of(self, values: Any) -> np.ndarray:
        """Numbers rounded to this type."""
        with np.errstate(over="ignore"):
            if self.dtype != BFLOAT16:
                return np.ascontiguousarray(values, dtype=self.dtype)
            narrow = np.ascontiguousarray(values, dtype=np.float32)
        bits = narrow.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(narrow), 0x7FFF, rounded).astype(np.uint16).view(BFLOAT16)

    def wide(self, stored: np.ndarray) -> np.ndarray:
        """The numbers that an array of this type holds, in float64."""
        if stored.dtype == BFLOAT16:
            stored = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        with np.errstate(invalid="ignore"):  # signaling NaNs
            return stored.astype(np.float64)

    def rounding(self, expected: np.ndarray) -> Any:
        """What storing a result in this type may add to its error, where that is coarser than the arithmetic."""
        if self.dtype == self.arithmetic:
            return 0.0
        return np.abs(expected) * 2.0**-self.bits + self.least


FLOAT = Storage("float", np.dtype("f4"), np.dtype("f4"), 4, 24, 2.0**-149)
HALF = Storage("__half", np.dtype("f2"), np.dtype("f4"), 8, 11, 2.0**-24)
BFLOAT = Storage("__nv_bfloat16", BFLOAT16, np.dtype("f4"), 8, 8, 2.0**-133)
DOUBLE = Storage("double", np.dtype("f8"), np.dtype("f8"), 2, 53, 2.0**-1074)
STORAGES = (FLOAT, HALF, BFLOAT, DOUBLE)
