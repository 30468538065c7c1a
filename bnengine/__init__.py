"""bnengine: train batch-normalized networks on the arrays you have.

Layers, networks and optimizers are written once, over the array API standard: NumPy arrays run on a CPU, CuPy arrays on
a GPU, and any other array-API library cross-checks results.

    import bnengine as bn

    digits = bn.load_digits()
    network = bn.Sequential(bn.Dense(64, 100), bn.BatchNorm(100), bn.Activation("relu"), bn.Dense(100, 10))
"""

from importlib import import_module
from typing import Any

from . import contracts, data, layers, losses, metrics, ops
from ._version import __version__
from .arrays.backend import Backend, available_backends, get_backend
from .data import ArraySource, IterableSource, Preprocessing, load_digits
from .errors import BackendError, CheckpointError, DataError, InputError, TrainingFailed
from .fused import threads
from .layers import Activation, BatchNorm, Dense, Dropout, Residual
from .layers.initializers import Glorot, He, Normal, Orthogonal
from .losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from .network.inference import Predictions, predict
from .network.sequential import Sequential
from .optim import optimizers, schedules
from .optim.optimizers import *  # noqa: F403 -- a public name for each optimizer
from .storage.saving import load, save
from .training import Average, Callback, Checkpointing, EarlyStopping, LossScale, Trainer

# Imported on first use: `import bnengine` stays quick.
_LAZY = {
    "bench": "bnengine.lab.bench",
    "explain": "bnengine.lab.explain",
    "inspect": "bnengine.inspect",
    "report": "bnengine.lab.report",
    "verify": "bnengine.lab.verify",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(_LAZY[name])
    raise AttributeError(f"module 'bnengine' has no attribute {name!r}")


__all__ = [
    "Activation",
    "ArraySource",
    "Average",
    "Backend",
    "BackendError",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Callback",
    "CheckpointError",
    "Checkpointing",
    "DataError",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Glorot",
    "He",
    "InputError",
    "IterableSource",
    "LossScale",
    "MeanSquaredError",
    "Normal",
    "Orthogonal",
    "Predictions",
    "Preprocessing",
    "Residual",
    "Sequential",
    "SoftmaxCrossEntropy",
    "Trainer",
    "TrainingFailed",
    "__version__",
    "available_backends",
    "contracts",
    "data",
    "get_backend",
    "layers",
    "load",
    "load_digits",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "predict",
    "save",
    "schedules",
    "threads",
]
__all__ += [*optimizers.__all__, *_LAZY]
