"""The kernel that takes a micro-batch out of the data, where 32 bits do not suffice for a place."""

import numpy as np

from tests.cuda_on_cpu.instances import kernel
from tests.cuda_on_cpu.launch import BLOCK, unwritten


def test_a_row_beyond_two_to_the_31_elements_is_found():
    """Places in x are 64-bit numbers: the low half alone would point into the rows before. Two rows are touched."""
    features, row = 1 << 16, (1 << 15) + 1
    x = np.zeros((row + 1, features), np.float16)
    x[row], x[1] = np.arange(features) % 2000, -1
    order, cursor, out = np.asarray([0, row]), np.asarray([1, 0]), unwritten((1, features), "f2")
    whole = (x, np.zeros(row + 1, np.int64), None, np.zeros(row + 1, np.int64), np.ones(1, np.float32), order, cursor)
    writes = (out, unwritten(1, "i8"), None, unwritten(1, "i8"), unwritten(1, "f4"))
    run = kernel("gather.cu", "gather", "__half", 8, "long long")
    run((4,), BLOCK, [*whole, *writes, 1, features, 1, 1, 0])
    assert out.tobytes() == x[row].tobytes()
