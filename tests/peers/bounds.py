"""How far two correct computations may differ: K u times the sum of the absolute terms of each formula.

K = 20 is twice the 10 of each side. Where a value that is rounded enters the next formula, its error is carried on.
"""

from typing import NamedTuple

import numpy as np

K = 20
DOUBLE = 2.0**-53
U = {"float32": 2.0**-24, "float64": DOUBLE}


def assert_within(ours: np.ndarray, theirs: np.ndarray, bound: np.ndarray, what: str) -> None:
    """|ours - theirs| <= bound everywhere; a failure says where it is worst."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch's is {theirs.shape}"
    assert np.all(np.isfinite(ours)), f"{what}: not finite"
    assert np.all(np.isfinite(theirs)), f"{what}: PyTorch's is not finite"
    excess = np.abs(ours - theirs) - bound
    if ours.size and excess.max() > 0:
        at = np.unravel_index(excess.argmax(), excess.shape)
        allowed = np.broadcast_to(bound, ours.shape)[at]
        raise AssertionError(f"{what}: {ours[at]!r} is not PyTorch's {theirs[at]!r} at {at}, allowed {allowed:.3g}")


class Affine(NamedTuple):
    """Bounds of z = x W + b and of the gradients."""

    y: np.ndarray
    dx: np.ndarray
    dW: np.ndarray
    db: np.ndarray


def activation_slack(u: float, z: np.ndarray, error: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(error of g(z), error of dy g'(z)) for an error of z: |g'| <= 1.13 and |g''| <= 1 for every g here.

    The own rounding of gelu is relative to |z|, that of the others to |g(z)| <= 1 + |z|.
    """
    return 1.2 * error + K * u * (1 + np.abs(z)), np.abs(dy) * (error + K * u * (1 + np.abs(z)))


def affine(u: float, x: np.ndarray, W: np.ndarray, b: np.ndarray, dy: np.ndarray, z: np.ndarray) -> Affine:
    """z = g(x W + b), two dimensions; dz = dy g'(z)."""
    rows, out = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    error = K * u * (np.abs(x) @ np.abs(W) + np.abs(b))
    ey, edz = activation_slack(u, z, error, dy)
    adz, ax, aW = np.abs(out) * 1.2, np.abs(rows), np.abs(W)
    edz = edz.reshape(out.shape)
    dx = (K * u * adz + edz) @ aW.T
    return Affine(ey, dx.reshape(x.shape), ax.T @ (K * u * adz + edz), np.sum(K * u * adz + edz, axis=0))


class Normalized(NamedTuple):
    """Bounds of batch normalization: output, gradients, statistics of the batch."""

    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray
    mean: np.ndarray
    var: np.ndarray


def normalized(
    u: float, x: np.ndarray, mean: np.ndarray, var: np.ndarray, gamma: np.ndarray, beta: np.ndarray, dy: np.ndarray,
    *, eps: float, batch: bool,
) -> Normalized:  # fmt: skip
    """y = g(gamma (x - mean) inv_std + beta), x (..., C), dz = dy g'.

    The mean is known to 2^-53 |mean| at best, which is 2^-53 |mean| inv_std of x_norm; it enters the variance once
    more, hence the factor `share` on everything that x_norm or inv_std enters.
    """
    rows, m = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    inv = 1 / np.sqrt(var + eps)
    share = 1 + DOUBLE / u * np.abs(mean) * inv
    h = (np.abs((x - mean) * inv) + 1) * share
    z = gamma * (x - mean) * inv + beta
    ey, edz = activation_slack(u, z, K * u * (np.abs(gamma) * h + np.abs(beta)), dy)
    edz = edz + K * u * 1.2 * np.abs(dy)
    dbeta, dgamma = edz.sum(axis=rows), (edz * h).sum(axis=rows)
    dx = np.abs(gamma) * inv * share * (edz + (dbeta / m + h * dgamma / m if batch else 0))
    spread = np.abs(x - mean).mean(axis=rows)
    emean = K * DOUBLE * np.abs(mean) + K * u * spread
    return Normalized(ey, dx, dgamma, dbeta, emean, K * u * var + 2 * emean * spread + emean**2)
