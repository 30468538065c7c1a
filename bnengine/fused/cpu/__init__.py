"""Launches of the kernels in kernels/cpu on NumPy arrays, and recorded steps as one native call."""

from ... import ops
from . import batch_norm, dense, dropout, gather, gather_raw, loss, pointwise, update  # noqa: F401 -- they register
from ._launch import version
from ._load import available
from .native import replayer

REPLAYED_AS = "one call"

for _op in ops.REGISTRY.values():
    if _op.family == "update":
        version(_op, "int64")(getattr(update, _op.name))  # counters are whole numbers

__all__ = ["REPLAYED_AS", "available", "replayer"]
