"""Small data that several tests read."""

import numpy as np
import pytest

from bnengine._typing import Array


@pytest.fixture
def images() -> Array:
    return (np.arange(7 * 4 * 3) % 251).astype(np.uint8).reshape(7, 4, 3)


@pytest.fixture
def digits_of_images() -> Array:
    return np.array([3, 1, 4, 1, 5, 9, 2], dtype=np.uint8)
