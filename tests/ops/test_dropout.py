"""Dropout: what is kept depends on what it is, never on its place in the batch."""

import math

import numpy as np
import pytest

from bnengine import ops
from bnengine.errors import InputError

STEP = np.asarray([3])
OPTIONS = {"seed": 5, "layer": 2, "rate": 0.25}


def mask(samples, step=STEP, features=64, **options):
    return ops.dropout(np.ones((len(samples), features)), step, np.asarray(samples), **(OPTIONS | options)).keep


def test_a_sample_has_one_mask_anywhere_in_the_batch():
    together = mask([4, 9, 1, 30])
    np.testing.assert_array_equal(together[::-1], mask([30, 1, 9, 4]))
    for row, sample in enumerate([4, 9, 1, 30]):
        np.testing.assert_array_equal(mask([sample])[0], together[row])


@pytest.mark.parametrize("other", [{"step": np.asarray([4])}, {"layer": 3}, {"seed": 6}])
def test_another_step_layer_or_seed_draws_another_mask(other):
    share = np.mean(mask(range(100)) == mask(range(100), **other))
    agreement = 0.75**2 + 0.25**2
    assert abs(share - agreement) < 5 * math.sqrt(agreement * (1 - agreement) / 6400)


def test_samples_have_different_masks():
    masks = mask(range(100))
    assert len({row.tobytes() for row in masks}) == 100


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_kept_is_that_of_independent_draws(rate):
    kept = mask(range(500), rate=rate, features=100)
    deviation = math.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation
    for axis, n in ((0, 500), (1, 100)):
        assert np.all(np.abs(kept.mean(axis) - (1 - rate)) < 6 * math.sqrt(rate * (1 - rate) / n))


def test_rate_0_keeps_every_bit(rng):
    x = rng.standard_normal((4, 3)).astype(np.float32)
    y, kept = ops.dropout(x, STEP, np.arange(4), **(OPTIONS | {"rate": 0.0}))
    assert kept.all()
    assert y.tobytes() == x.tobytes()


def test_a_value_that_is_not_finite_is_dropped_or_shows():
    x = np.full((1, 64), np.nan)
    y, kept = ops.dropout(x, STEP, np.asarray([0]), **OPTIONS)
    np.testing.assert_array_equal(np.isnan(y), kept)


def test_an_empty_batch_is_empty():
    y, kept = ops.dropout(np.zeros((0, 3)), STEP, np.zeros(0, np.int64), **OPTIONS)
    assert y.shape == kept.shape == (0, 3)


X, SAMPLES = np.zeros((4, 3)), np.arange(4)


RATE = "rate must be a finite number of at least 0 and below 1"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: ops.dropout(X, STEP, SAMPLES, seed=0, layer=0, rate=1.0),
            f"dropout: {RATE}, got 1.0. It is the share of values set to zero.",
        ),
        (
            lambda: ops.dropout(X, STEP, SAMPLES, seed=0, layer=0, rate=-0.1),
            f"dropout: {RATE}, got -0.1. It is the share of values set to zero.",
        ),
        (
            lambda: ops.dropout(X, STEP, SAMPLES, seed=0, layer=0, rate=math.nan),
            f"dropout: {RATE}, got nan. It is the share of values set to zero.",
        ),
        (
            lambda: ops.dropout(X, STEP, SAMPLES[:3], **OPTIONS),
            "dropout: (3,) sample indices for an input (4, 3). Give one per row.",
        ),
        (
            lambda: ops.dropout(X.astype(np.int64), STEP, SAMPLES, **OPTIONS),
            "dropout: x is int64. Give float32 or float64.",
        ),
        (
            lambda: ops.dropout_backward(X, X > 0, rate=1.0),
            f"dropout_backward: {RATE}, got 1.0. It is the share of values set to zero.",
        ),
        (
            lambda: ops.dropout_backward(X, X[:1] > 0, rate=0.5),
            "dropout_backward: dy (4, 3), keep (1, 3) must be of one shape.",
        ),
        (
            lambda: ops.dropout_backward(SAMPLES, SAMPLES > 0, rate=0.5),
            "dropout_backward: dy is int64. Give float32 or float64.",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_that_echoes_it(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text
