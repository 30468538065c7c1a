"""What every version of an op must satisfy: examples, error bounds and checks of arguments, under the names of `ops`.

Importing this package gives each op of the engine its contract.
"""

from . import activations, batch_norm, check_step, dense, dropout, gather, loss, pointwise, statistics, update

__all__ = [
    "activations",
    "batch_norm",
    "check_step",
    "dense",
    "dropout",
    "gather",
    "loss",
    "pointwise",
    "statistics",
    "update",
]
