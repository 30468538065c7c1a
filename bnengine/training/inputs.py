"""Buffers for the micro-batches of a step; a replay reads the same memory as the recorded step."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .._typing import Array
from ..data import Batch
from ..errors import InputError
from ..fused import backend_feature
from ..losses import LossFunction
from ..network.sequential import Sequential

# A divisor that counts for nothing in the mean of an epoch, and divides a loss of 0 in each dtype.
WEIGHTLESS = 1e-20


class MicroBatch(NamedTuple):
    """A micro-batch on the backend."""

    x: Array
    target: Array
    weights: Array | None
    samples: Array


class Field(NamedTuple):
    """The shape and the dtype of one array of a micro-batch."""

    shape: tuple[int, ...]
    dtype: str


class Prepared(NamedTuple):
    """A checked batch, whose arrays are still in their own library."""

    x: Array
    target: np.ndarray
    weights: np.ndarray | None
    samples: np.ndarray


class Inputs:
    """Buffers for the micro-batches of a step and for the divisor of its loss; a smaller batch fills a prefix.

    Attributes:
        generation: changes when a larger buffer replaces one, or resident data replace earlier ones, which invalidates
            plans.
    """

    def __init__(self, network: Sequential, loss: LossFunction) -> None:
        backend = self.backend = network.backend
        self.network, self.loss, self.outputs, self.generation = network, loss, network.outputs or 1, 0
        self.divisor = backend.xp.zeros((1,), dtype=backend.dtype(network.dtype), device=backend.device)
        self._buffers: dict[tuple[int, str], Array] = {}
        uploads = backend_feature(backend.name, "Uploads")
        self._uploads = None if uploads is None else uploads()

    def prepare(self, batch: Batch) -> Prepared:
        """Check a batch; InputError if the network or the loss cannot take it."""
        target = self.loss.targets(batch.y, self.outputs)
        weights = self.loss.weights(batch.weights, target)
        x, samples = self.network.checked(batch.x), np.asarray(batch.samples)
        if not target.shape[:1] == samples.shape == (x.shape[0],):
            raise InputError(
                f"Step: targets and sample indices must be one per row ({x.shape[0]}), got shapes {target.shape} "
                f"and {samples.shape}."
            )
        return Prepared(x, target, weights, samples)

    def dtypes(self, batch: Prepared) -> dict[str, str]:
        """Return the dtype that each array of a batch has on the backend."""
        dtype = self.network.dtype
        target = "int64" if batch.target.dtype.kind == "i" else dtype
        return {"x": self.network.storage, "target": target, "weights": dtype, "samples": "int64"}

    def put(self, i: int, batch: Batch) -> MicroBatch:
        """Copy a batch into the buffers of micro-batch i."""
        prepared = self.prepare(batch)
        dtypes = self.dtypes(prepared)
        arrays = {name: a for name, a in prepared._asdict().items() if a is not None}
        views = {name: self._view(i, name, Field(tuple(a.shape), dtypes[name])) for name, a in arrays.items()}
        uploads = {name: a for name, a in arrays.items() if self._uploads is not None and isinstance(a, np.ndarray)}
        for name in arrays.keys() - uploads.keys():
            views[name][...] = self.backend.asarray(arrays[name], dtypes[name])
        if self._uploads is not None and uploads:
            with self._uploads([self.backend.host(a, dtypes[name]) for name, a in uploads.items()]) as uploaded:
                for name, array in zip(uploads, uploaded, strict=True):
                    views[name][...] = array
        return MicroBatch(**{name: views.get(name) for name in MicroBatch._fields})

    def views(self, i: int, fields: Mapping[str, Field | None]) -> MicroBatch:
        """Return the buffers of micro-batch i without filling them; `fields` has the names of `MicroBatch`."""
        return MicroBatch(**{name: None if f is None else self._view(i, name, f) for name, f in fields.items()})

    def total(self, batches: Sequence[Batch]) -> float:
        """Return the divisor of a step's loss: the rows, or the sum of their weights, of all its micro-batches."""
        targets = [self.loss.targets(b.y, self.outputs) for b in batches]
        totals = [self.loss.total(y, b.weights, self.outputs) for y, b in zip(targets, batches, strict=True)]
        return positive_total(sum(totals))

    def weigh(self, batches: Sequence[Batch]) -> Array:
        """Set the divisor of the step's loss, and return it."""
        self.divisor[...] = self.total(batches)
        return self.divisor

    def arrays(self) -> list[Array]:
        """Return all buffers."""
        return [self.divisor, *self._buffers.values()]

    def _view(self, i: int, name: str, field: Field) -> Array:
        dtype = self.backend.dtype(field.dtype)
        buffer: Array = self._buffers.get((i, name))
        small = buffer is None or buffer.shape[0] < field.shape[0] or buffer.shape[1:] != field.shape[1:]
        if small or buffer.dtype != dtype:
            buffer = self._buffers[i, name] = self.backend.xp.empty(
                field.shape, dtype=dtype, device=self.backend.device
            )
            self.generation += 1
        return buffer[: field.shape[0], ...]


def positive_total(total: float) -> float:
    """Return the divisor of a step's loss, above 0 where all rows have weight 0: their loss and gradients are 0."""
    if not total < float("inf"):
        raise InputError(f"Step: the weights of a step must have a finite sum, got {total!r}. Divide them.")
    return total or WEIGHTLESS
