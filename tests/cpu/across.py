"""What every launcher gives, taken from one processor to another: python -m tests.cpu.across write | compare FILE.

The inputs travel with the results, since NumPy need not draw or round alike on both. A NaN is a NaN, whatever its sign.
"""

import pickle
import sys
from collections.abc import Iterator

import numpy as np

from bnengine.fused.cpu import _load
from bnengine.ops import Example
from tests.contracts.examples import examples
from tests.contracts.libraries import FULL, Native
from tests.fused import native

LIBRARY = Native(native, "numpy")
NAMES = LIBRARY.names


def given(name: str) -> Iterator[Example]:
    """Examples of an op, in float32 and float64."""
    for dtype in FULL:
        yield from examples(name, dtype)


def differing(got: np.ndarray, expected: np.ndarray) -> int:
    """How many elements differ in a bit."""
    if got.dtype.kind != "f":
        return int((got != expected).sum())
    bits = f"u{got.itemsize}"
    both = np.isnan(got) & np.isnan(expected)
    return int(((got.view(bits) != expected.view(bits)) & ~both).sum())


def write(path: str) -> None:
    """Every example with what its launcher gives here."""
    with open(path, "wb") as file:
        pickle.dump(
            {name: [(example, LIBRARY.outputs(name, example)) for example in given(name)] for name in NAMES}, file
        )


def compare(path: str) -> int:
    """Print the ops whose bits differ here; the exit status is 1 if there are any."""
    with open(path, "rb") as file:
        written = pickle.load(file)
    count, different = 0, 0
    for name in NAMES:
        for example, expected in written[name]:
            got = LIBRARY.outputs(name, example)
            assert got.keys() == expected.keys(), name
            for field, value in expected.items():
                if value is None:
                    assert got[field] is None, (name, field)
                    continue
                count += value.size
                if some := differing(np.atleast_1d(got[field]), np.atleast_1d(value)):
                    different += some
                    print(f"{name}, {example.label}: {some} of {value.size} elements of {field} differ")
    print(f"{_load.isa()}: {len(NAMES)} ops, {count} elements, {different} of them with other bits")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit({"write": write, "compare": compare}[sys.argv[1]](sys.argv[2]))
