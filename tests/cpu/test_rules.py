"""Rules of one element that no op shows: figures worked by hand."""

import ctypes
from itertools import permutations, product

from tests.cpu.build import compiled

CODE = """#include "functions.h"
extern "C" __attribute__((visibility("default"))) double median(double a, double b, double c) {
  return bnengine::median(a, b, c);
}
"""


def test_the_median_of_three_is_the_middle_one_in_any_order_and_of_equals_too():
    median = ctypes.CDLL(str(compiled(CODE, "v3", "-shared", "-fPIC"))).median
    median.restype, median.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    assert [median(*given) for given in permutations((1, 2, 3))] == [2] * 6
    assert [median(*given) for given in permutations((2, 2, -1e6))] == [2] * 6  # an outlier is none
    assert [median(*given) for given in product((1, 2), repeat=3)] == [1, 1, 1, 2, 1, 2, 2, 2]
