"""Rules of one element that no op shows: figures worked by hand."""

import ctypes
from itertools import permutations, product
from math import inf, isnan, nan

from tests.cpu.build import compiled

CODE = """#include "functions.h"
extern "C" __attribute__((visibility("default"))) double median(double a, double b, double c) {
  return bnengine::median(a, b, c);
}
extern "C" __attribute__((visibility("default"))) double squares_of_four(const double* x) {
  const double four[4] = {x[0], x[1], x[2], x[3]};
  return bnengine::block_of(four).squares;
}
"""


def compiled_rules():
    return ctypes.CDLL(str(compiled(CODE, "v3", "-shared", "-fPIC")))


def test_the_median_of_three_is_the_middle_one_in_any_order():
    median = compiled_rules().median
    median.restype, median.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    assert [median(*given) for given in permutations((1, 2, 3))] == [2] * 6
    assert [median(*given) for given in permutations((2, 2, -1e6))] == [2] * 6  # an outlier is none
    assert [median(*given) for given in product((1, 2), repeat=3)] == [1, 1, 1, 2, 1, 2, 2, 2]


def test_squares_overflow_to_infinity_and_keep_nan():
    squares = compiled_rules().squares_of_four
    squares.restype, four = ctypes.c_double, ctypes.c_double * 4
    assert squares(four(1, 2, 3, 6)) == 14
    assert squares(four(5, 5, 5, 5)) == 0
    assert squares(four(1e200, -1e200, 2e200, -3e200)) == inf
    assert isnan(squares(four(1, nan, 2, 3)))
