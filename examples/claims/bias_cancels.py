"""A bias before batch norm cancels: any b gives the same normalized values, and its gradient is only rounding."""

import numpy as np

import bnengine as bn
from bnengine import ops


def main() -> None:
    rng = np.random.default_rng(0)
    a = bn.load_digits().x[:64].reshape(64, -1).astype(np.float64)
    W, gamma, beta = rng.normal(size=(a.shape[1], 8)), rng.normal(size=8), rng.normal(size=8)
    dy = rng.normal(size=(64, 8))

    def layer(b):
        z = a @ W + b
        return z, ops.batch_norm(z, gamma, beta).y

    _, without = layer(0.0)
    for b in (1.0, 100.0, 1e6):
        z, y = layer(b)
        dz = ops.normalize_backward(dy, z, y, ops.moments(z).batch, gamma, beta).dx
        ratio = np.abs(dz.sum(0)).max() / np.abs(dz).sum(0).max()
        print(f"b = {b:9g}: outputs change by {np.abs(y - without).max():.0e}, dL/db is {ratio:.0e} of sum |dL/dz|")

    frozen = ops.moments(layer(0.0)[0]).batch  # statistics that do not change with b, as in evaluation
    change = np.abs(ops.normalize(layer(1.0)[0], frozen, gamma, beta) - without).max()
    print(f"with frozen statistics b = 1 changes the outputs by {change:.2g}")


if __name__ == "__main__":
    main()
