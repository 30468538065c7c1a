"""The largest norm whose square an optimizer can keep."""

import math

import numpy as np

from bnengine import ops


def test_a_norm_whose_square_just_fits_is_usable():
    root = math.sqrt(np.finfo(np.float64).max)
    assert math.isfinite(root * root)
    verdict = ops.check_step(np.ones(1), np.asarray([root]), np.zeros((1, 3, 2)))
    assert (verdict.norm.tolist(), verdict.ok.tolist()) == ([root], [True])
    with np.errstate(over="ignore"):
        above = ops.check_step(np.ones(1), np.asarray([math.nextafter(root, math.inf)]), np.zeros((1, 3, 2)))
    assert above.ok.tolist() == [False]
