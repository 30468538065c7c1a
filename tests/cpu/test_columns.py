"""Batch normalisation by columns: every block has its own channels' gamma, beta and statistics."""

import numpy as np
import pytest

from bnengine import ops

pytestmark = pytest.mark.usefixtures("native")


@pytest.mark.parametrize("channels", [200, 257])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_blocks_of_columns_go_the_way_back_by_their_own_gamma_and_beta(activation, channels, rng):
    x, dy = rng.standard_normal((2, 64, channels))
    gamma, beta = 1 + rng.random(channels), np.linspace(-3, 3, channels)  # of which no two channels have the same
    statistics = np.stack([np.full(channels, 64.0), x.mean(axis=0), x.var(axis=0)])
    options = {"activation": activation}
    y = ops.normalize(x, statistics, gamma, beta, **options)
    found = ops.normalize_backward(dy, x, y, statistics, gamma, beta, **options)
    with ops.using("reference"):
        np.testing.assert_allclose(y, ops.normalize(x, statistics, gamma, beta, **options), atol=1e-13)
        expected = ops.normalize_backward(dy, x, y, statistics, gamma, beta, **options)
    for name in ("dx", "dgamma", "dbeta"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12, err_msg=name)
