"""gamma (z - mu)/sigma + beta equals A z + B on one batch, but not on the next, and its gradient differs."""

import numpy as np

import bnengine as bn
from bnengine import ops


def main() -> None:
    rng = np.random.default_rng(0)
    a = bn.load_digits().x[:128].reshape(128, -1) / 16.0
    W, gamma, beta = rng.normal(size=(a.shape[1], 8)), rng.normal(size=8), rng.normal(size=8)
    first, following = a[:64] @ W, a[64:] @ W

    batch = ops.moments(first).batch
    A = gamma / np.sqrt(batch[2] + 1e-5)
    B = beta - A * batch[1]
    for name, z in (("the batch that fixed A and B", first), ("the next batch", following)):
        y = ops.batch_norm(z, gamma, beta).y
        print(f"{name}: A z + B is off by {np.abs(A * z + B - y).max() / np.abs(y).max():.1e} of the largest output")

    dy, y = rng.normal(size=first.shape) + 1, ops.batch_norm(first, gamma, beta).y
    by_batch, by_constants = (
        (a[:64].T @ ops.normalize_backward(dy, first, y, batch, gamma, beta, batch_statistics=by_batch).dx).ravel()
        for by_batch in (True, False)
    )
    sizes = np.linalg.norm(by_batch), np.linalg.norm(by_constants)
    cosine = by_batch @ by_constants / (sizes[0] * sizes[1])
    print(f"gradients of W: cosine {cosine:.2f}, that of A z + B is {sizes[1] / sizes[0]:.1f} times as large")


if __name__ == "__main__":
    main()
