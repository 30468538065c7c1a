"""The handwritten digits that come with the package; digits.txt next to this file names source and license."""

from pathlib import Path

import numpy as np

from .dataset import Dataset


def load_digits() -> Dataset:
    """Load 1,797 handwritten digits.

    Source: UCI "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, CC BY 4.0,
    doi:10.24432/C50P49; the test part of that set.

    Returns:
        x (1797, 8, 8) uint8 with values 0 to 16, y (1797,) int64 with the digits 0 to 9.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        return Dataset(x=arrays["x"], y=arrays["y"].astype(np.int64), name="digits", classes=tuple(range(10)))
