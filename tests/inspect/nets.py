"""Networks with numbers in every place where a mistake would hide: biases, gammas of both signs, odd statistics."""

from typing import Any

import numpy as np

import bnengine as bn
from bnengine.layers import Layer


def filled(*layers: Layer, dtype: str = "float64", seed: int = 0, spread: float = 1.0) -> bn.Sequential:
    """A network of random weights, biases, gammas of both signs, betas, means, and variances in [0.5, 2] spread."""
    network = bn.Sequential(*layers, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    state: dict[str, Any] = {}
    for name, array in network.state_dict().items():
        kind = name.rsplit(".", 1)[1]
        if kind == "running_count":
            state[name] = np.full(array.shape, 640.0)
        elif kind == "running_var":
            state[name] = rng.uniform(0.5, 2, array.shape) * spread
        elif kind == "gamma":
            state[name] = rng.uniform(0.5, 1.5, array.shape) * np.where(np.arange(array.size) % 2, -1, 1)
        elif kind == "W":
            state[name] = array
        else:
            state[name] = rng.normal(size=array.shape)
    network.load_state_dict(state)
    return network


def moments(x: np.ndarray) -> np.ndarray:
    """(count, mean, biased variance) of each column, by NumPy."""
    return np.stack([np.full(x.shape[-1], float(len(x))), x.mean(axis=0), x.var(axis=0)])


def normalized(x: np.ndarray, statistics: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """gamma (x - mean) / sqrt(var + 1e-5) + beta."""
    return gamma * (x - statistics[1]) / np.sqrt(statistics[2] + 1e-5) + beta
