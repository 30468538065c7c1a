"""Units of rounding: half the distance from 1 to the next number of a dtype."""

import numpy as np
import pytest

from bnengine.arrays.dtypes import LEAST, NORMAL, UNITS


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_unit_is_half_the_distance_from_one_to_the_next_number(dtype):
    assert UNITS[dtype] == float(np.finfo(dtype).eps) / 2
    assert NORMAL[dtype] == float(np.finfo(dtype).smallest_normal)
    assert LEAST[dtype] == float(np.finfo(dtype).smallest_subnormal)


def test_bfloat16_has_eight_bits():
    """Seven stored and one implied: after 1 comes 1 + 2^-7. Its exponents are float32's."""
    assert UNITS["bfloat16"] == 2.0**-8
    assert (NORMAL["bfloat16"], LEAST["bfloat16"]) == (2.0**-126, 2.0**-133)
    assert len(UNITS) == 4
