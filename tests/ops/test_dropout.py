"""Dropout: what is kept depends on seed, layer, step and sample, never on the place in the batch."""

import math

import numpy as np
import pytest

from bnengine import ops

STEP = np.asarray([3])
OPTIONS = {"seed": 5, "layer": 2, "rate": 0.25}


def mask(samples, step=STEP, features=64, **options):
    return ops.dropout(np.ones((len(samples), features)), step, np.asarray(samples), **(OPTIONS | options)).keep


def test_a_sample_has_one_mask_anywhere_in_the_batch():
    together = mask([4, 9, 1, 30])
    np.testing.assert_array_equal(together[::-1], mask([30, 1, 9, 4]))
    assert len({row.tobytes() for row in mask(range(100))}) == 100


@pytest.mark.parametrize("other", [{"step": np.asarray([4])}, {"layer": 3}, {"seed": 6}])
def test_another_step_layer_or_seed_draws_another_mask(other):
    share = np.mean(mask(range(100)) == mask(range(100), **other))
    agreement = 0.75**2 + 0.25**2
    assert abs(share - agreement) < 5 * math.sqrt(agreement * (1 - agreement) / 6400)


def test_a_value_that_is_not_finite_is_dropped_or_shows():
    y, kept = ops.dropout(np.full((1, 64), np.nan), STEP, np.asarray([0]), **OPTIONS)
    np.testing.assert_array_equal(np.isnan(y), kept)
