"""Weights of samples that do not fit: the error names the shape that would, with all leading axes."""

import re

import numpy as np
import pytest

from bnengine import ops
from bnengine.errors import InputError


@pytest.mark.parametrize("loss", [ops.binary_cross_entropy, ops.mean_squared_error])
@pytest.mark.parametrize(("shape", "rows"), [((4, 2), (4,)), ((2, 3, 4), (2, 3))])
def test_the_error_names_the_shape_of_the_rows(loss, shape, rows):
    with pytest.raises(InputError, match=re.escape(f"{loss.name}: sample_weights (9,); the rows need {rows}")):
        loss(np.ones(shape), np.ones(shape), np.ones(9), divisor=1)
