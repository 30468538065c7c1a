"""Raw rows on their way into a batch: each of the 65,536 numbers of IEEE's 16 bits."""

import numpy as np
import pytest

from bnengine import ops

pytestmark = pytest.mark.usefixtures("native")
COLUMNS = 16


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_of_16_bits_is_widened_exactly(dtype, rng):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, COLUMNS)
    n = len(x)
    order, samples = rng.permutation(n), rng.permutation(n)
    given = np.zeros(n, np.int64), None, samples, np.ones(1, dtype), order, np.zeros(2, np.int64)
    with np.errstate(invalid="ignore"):
        wide = x.astype(dtype)[samples[order]]
    out = ops.gather_raw(x, *given, rows=n).x
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, wide)
    assert (np.signbit(out) == np.signbit(wide)).all()
