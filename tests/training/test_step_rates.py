"""The table of learning rates: each of its rows is looked at, and skipped steps take none of them away."""

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.layers import Dense
from bnengine.network.sequential import Sequential
from tests.network.support import batch, step_of


def one_weight():
    return Sequential(Dense(1, 1, bias=False), backend="numpy", dtype="float64")


@pytest.mark.parametrize("rates", [[0.1, float("inf")], [float("inf"), 0.1], [0.1, float("nan"), 0.1]])
def test_one_rate_that_is_not_finite_is_an_error_among_others_that_are(rates):
    with pytest.raises(InputError, match="must be finite, from 0 up"):
        step_of(one_weight()).schedule(rates)


def test_rates_that_skipped_steps_left_over_come_in_their_turn_and_the_last_one_stays():
    step, found = step_of(one_weight()), []
    step.schedule([0.1, 0.2, 0.3])
    weight = step.network.named_parameters()["0.W"]
    good = batch(np.ones((1, 1)), np.ones((1, 1)))
    for skipped in (True, True, False, False, False, False):
        weight[...] = 2.0
        step([good._replace(x=good.x * np.nan) if skipped else good])
        found.append((2.0 - float(weight[0, 0])) / 2)  # (2 - 1) squared has the gradient 2
    np.testing.assert_allclose(found, [0, 0, 0.1, 0.2, 0.3, 0.3], rtol=1e-14)
