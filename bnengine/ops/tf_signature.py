"""Batch normalization with the signature of `tf.nn.batch_normalization`."""

from .._typing import Array
from ..arrays.namespaces import namespace
from .batch_norm import normalize


def batch_normalization(
    x: Array, mean: Array, variance: Array, offset: Array | None, scale: Array | None, variance_epsilon: float
) -> Array:
    """y = scale (x - mean) / sqrt(variance + variance_epsilon) + offset: `normalize` with TensorFlow's arguments.

    Args:
        x: (..., C), floating, as is y.
        mean, variance: (C,), of any floating dtype.
        offset, scale: beta and gamma, (C,); None for 0 and 1.
        variance_epsilon: a number from 0 up, added to the variance.

    Raises:
        InputError: as `normalize` does.
    """
    xp = namespace(x)
    mean, variance = (xp.astype(a, xp.float64) for a in (mean, variance))
    statistics = xp.stack([xp.ones_like(mean), mean, variance])
    return normalize(x, statistics, scale, offset, eps=variance_epsilon)
