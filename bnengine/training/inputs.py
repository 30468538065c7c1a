"""Buffers for the micro-batches of a step: a replay finds them where the recorded step did."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .._typing import Array
from ..data import Batch
from ..errors import InputError
from ..fused import backend_feature
from ..losses import LossFunction
from ..network.sequential import Sequential


class Micro(NamedTuple):
    """A micro-batch on the backend."""

    x: Array
    target: Array
    weights: Array | None
    samples: Array


class Field(NamedTuple):
    """Shape and dtype of one array of a micro-batch."""

    shape: tuple[int, ...]
    dtype: str


class Prepared(NamedTuple):
    """A batch as a step reads it: input, targets and weights checked, arrays wherever they were."""

    x: Array
    target: np.ndarray
    weights: np.ndarray | None
    samples: np.ndarray


class Inputs:
    """Buffers for the micro-batches of a step and for the divisor of its loss; a smaller batch fills a prefix.

    `generation` changes when a buffer is replaced by a larger one, or data of their own are brought in: plans that read
    the older ones are out of date.
    """

    def __init__(self, network: Sequential, loss: LossFunction) -> None:
        backend = self.backend = network.backend
        self.network, self.loss, self.outputs, self.generation = network, loss, network.outputs or 1, 0
        self.divisor = backend.xp.zeros((1,), dtype=backend.dtype(network.dtype), device=backend.device)
        self._held: dict[tuple[int, str], Array] = {}
        uploads = backend_feature(backend.name, "Uploads")
        self._uploads = None if uploads is None else uploads()

    def prepare(self, batch: Batch) -> Prepared:
        """Check a batch; InputError for one that network or loss cannot take."""
        target = self.loss.targets(batch.y, self.outputs)
        weights = self.loss.weights(batch.weights, target)
        x, samples = self.network.checked(batch.x), np.asarray(batch.samples)
        if not target.shape[:1] == samples.shape == (x.shape[0],):
            raise InputError(
                f"Step: {x.shape[0]} rows of input, targets of shape {target.shape}, sample indices of shape "
                f"{samples.shape}; give one target and one index a row"
            )
        return Prepared(x, target, weights, samples)

    def dtypes(self, batch: Prepared) -> dict[str, str]:
        """The dtype that each array of a batch has on the backend."""
        own = self.network.dtype
        target = "int64" if batch.target.dtype.kind == "i" else own
        return {"x": self.network.storage, "target": target, "weights": own, "samples": "int64"}

    def put(self, i: int, batch: Batch) -> Micro:
        """Micro-batch i, copied in."""
        prepared = self.prepare(batch)
        dtypes = self.dtypes(prepared)
        given = {name: a for name, a in prepared._asdict().items() if a is not None}
        views = {name: self._view(i, name, Field(tuple(a.shape), dtypes[name])) for name, a in given.items()}
        away = {name: a for name, a in given.items() if self._uploads is not None and isinstance(a, np.ndarray)}
        for name in given.keys() - away.keys():
            views[name][...] = self.backend.asarray(given[name], dtypes[name])
        if self._uploads is not None and away:
            with self._uploads([self.backend.host(a, dtypes[name]) for name, a in away.items()]) as uploaded:
                for name, array in zip(away, uploaded, strict=True):
                    views[name][...] = array
        return Micro(**{name: views.get(name) for name in Micro._fields})

    def views(self, i: int, fields: Mapping[str, Field | None]) -> Micro:
        """Micro-batch i, as what its arrays held before; `fields` by the names of `Micro`."""
        return Micro(**{name: None if f is None else self._view(i, name, f) for name, f in fields.items()})

    def total(self, batches: Sequence[Batch]) -> float:
        """What the loss of a step is divided by: the rows, or their weight, of all its micro-batches."""
        targets = [self.loss.targets(b.y, self.outputs) for b in batches]
        totals = [self.loss.total(y, b.weights, self.outputs) for y, b in zip(targets, batches, strict=True)]
        return positive_total(sum(totals))

    def weigh(self, batches: Sequence[Batch]) -> Array:
        """The divisor, set."""
        self.divisor[...] = self.total(batches)
        return self.divisor

    def arrays(self) -> list[Array]:
        """All memory held here."""
        return [self.divisor, *self._held.values()]

    def _view(self, i: int, name: str, field: Field) -> Array:
        kind, held = self.backend.dtype(field.dtype), self._held.get((i, name))
        if held is None or held.shape[0] < field.shape[0] or held.shape[1:] != field.shape[1:] or held.dtype != kind:
            held = self._held[i, name] = self.backend.xp.empty(field.shape, dtype=kind, device=self.backend.device)
            self.generation += 1
        return held[: field.shape[0], ...]


def positive_total(total: float) -> float:
    """The weight of a step, which it is divided by."""
    if not 0 < total < float("inf"):
        raise InputError(f"Step: the weights of the step sum to {total!r}; they must be finite and sum to more than 0")
    return total
