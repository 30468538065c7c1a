"""Batch normalization with ops alone: forward, running statistics, and the gradient checked by differences."""

import numpy as np

from bnengine import ops


def main() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(3.0, 2.0, (8, 4)), rng.standard_normal((8, 4))
    gamma, beta = rng.standard_normal(4), rng.standard_normal(4)

    batch = ops.moments(x).batch  # (3, 4): count, mean, biased variance
    y = ops.normalize(x, batch, gamma, beta)
    print("mean of y - beta:   ", np.round(y.mean(0) - beta, 12))
    print("std of y / |gamma|: ", np.round(y.std(0) / np.abs(gamma), 6))

    running = np.stack([np.zeros(4), np.zeros(4), np.ones(4)])  # before any training: count 0, mean 0, variance 1
    ok, decay, unbiased = np.asarray([True]), np.full(4, 0.9), np.full(4, True)
    print("running mean:       ", np.round(ops.commit(running, batch, ok, decay, unbiased)[1], 4))
    unchanged = ops.commit(running, batch, np.asarray([False]), decay, unbiased)
    print("a skipped step changes nothing:", np.array_equal(unchanged, running))

    halves = ops.merge(ops.moments(x[:3]).batch, ops.moments(x[3:]).batch)
    print("merged halves are the whole batch:", np.allclose(halves, batch, rtol=1e-14))

    def loss(x):
        return np.sum(w * ops.normalize(x, ops.moments(x).batch, gamma, beta))

    dx = ops.normalize_backward(w, x, y, batch, gamma, beta).dx
    direction, h = rng.standard_normal(x.shape), 1e-6
    slope = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
    print(f"gradient along a random direction: {np.sum(dx * direction):.8f}, by differences {slope:.8f}")


if __name__ == "__main__":
    main()
