"""Measure the largest error of batch normalization in float32 for inputs with a large mean.

For x = mean + noise of standard deviation 1, the usual float32 formulas lose digits as the mean grows. bnengine keeps
statistics in float64 and subtracts the mean as a pair of numbers.
"""

import importlib.util

import numpy as np

from bnengine import ops

MEANS = (0.0, 1e2, 1e4, 1e6)


def exact(x):
    x = x.astype(np.float64)
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def ours(x):
    ones = np.ones(x.shape[1], np.float32)
    return ops.normalize(x, ops.moments(x).batch, ones, 0 * ones)


def plain_numpy(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + np.float32(1e-5))


def pytorch(x):
    import torch

    return torch.nn.functional.batch_norm(torch.from_numpy(x), None, None, training=True, eps=1e-5).numpy()


def errors():
    """Return {name: largest |y - exact y| for each mean}."""
    methods = {"bnengine": ours, "NumPy, two passes": plain_numpy}
    if importlib.util.find_spec("torch"):
        methods["PyTorch"] = pytorch
    noise = np.random.default_rng(0).standard_normal((4096, 8))
    batches = [(mean + noise).astype(np.float32) for mean in MEANS]
    return {name: [float(np.abs(method(x) - exact(x)).max()) for x in batches] for name, method in methods.items()}


def main() -> None:
    print("largest error of y".ljust(20) + "".join(f"mean {mean:g}".rjust(12) for mean in MEANS))
    for name, largest in errors().items():
        print(name.ljust(20) + "".join(f"{error:.1e}".rjust(12) for error in largest))


if __name__ == "__main__":
    main()
