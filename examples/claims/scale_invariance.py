"""BN(c W) = BN(W) except for eps, so the gradient is orthogonal to the weights, and SGD makes them longer."""

import numpy as np

import bnengine as bn
from bnengine import ops


def main() -> None:
    rng = np.random.default_rng(0)
    a = bn.load_digits().x[:64].reshape(64, -1) / 16.0
    W, gamma, beta = rng.normal(size=(a.shape[1], 8)) / 8, rng.normal(size=8), rng.normal(size=8)
    y = ops.batch_norm(a @ W, gamma, beta).y
    for c in (10, 0.1, 0.001):
        change = np.abs(ops.batch_norm(a @ (c * W), gamma, beta).y - y).max()
        print(f"c = {c:5g}: the outputs change by {change:.1e}")

    z, dy = a @ W, rng.normal(size=y.shape)
    for eps in (1e-30, 1e-5, 0.1):
        batch = ops.moments(z).batch
        out = ops.normalize(z, batch, gamma, beta, eps=eps)
        back = ops.normalize_backward(dy, z, out, batch, gamma, beta, eps=eps)
        dW = a.T @ back.dx
        along = (W * dW).sum(0)
        rest = along - gamma * back.dgamma * eps / (batch[2] + eps)
        print(f"eps {eps:5g}: w . dw is {np.abs(along).max():.1e}, without eps's term {np.abs(rest).max():.0e}")
        if eps == 1e-30:
            grown = np.sum((W - 0.1 * dW) ** 2) - np.sum(W**2)
            print(f"           a step of SGD adds {grown:.6g} to |W|^2; rate^2 |dW|^2 is {0.01 * np.sum(dW**2):.6g}")


if __name__ == "__main__":
    main()
