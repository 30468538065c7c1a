"""Two rows are too few: batch norm maps them to +-1 whatever they are, and only eps leaves a gradient."""

import numpy as np

import bnengine as bn
from bnengine import ops


def main() -> None:
    rng = np.random.default_rng(0)
    a = bn.load_digits().x.reshape(-1, 64) / 16.0
    W = rng.normal(size=(64, 8))
    ones = np.ones(8)
    for rows in (2, 3, 8, 64, 256):
        z, dy = a[:rows] @ W, rng.normal(size=(rows, 8))
        batch = ops.moments(z).batch
        sizes = []
        for eps in (1e-5, 1e-12):
            y = ops.normalize(z, batch, ones, 0 * ones, eps=eps)
            dx = ops.normalize_backward(dy, z, y, batch, ones, 0 * ones, eps=eps).dx
            sizes.append(np.linalg.norm(dx) / np.linalg.norm(dy))
        x_norm = ", ".join(f"{value:.3f}" for value in y[:2, 0])
        print(f"{rows:3} rows: first values {x_norm}; |dL/dz|/|dL/dy| {sizes[0]:.1e}, eps 1e-12 {sizes[1]:.1e}")

    population = ops.moments(a @ W).batch
    for rows in (2, 8, 64, 256):
        draws = [a[rng.choice(len(a), rows, replace=False)] @ W for _ in range(200)]
        errors = [(ops.moments(z).batch[1] - population[1]) / np.sqrt(population[2]) for z in draws]
        print(f"{rows:3} rows: the mean of a batch is off by {np.sqrt(np.mean(np.square(errors))):.2f} sigma")


if __name__ == "__main__":
    main()
