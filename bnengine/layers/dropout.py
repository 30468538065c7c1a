"""Dropout: values set to zero at random in training."""

from collections.abc import Iterator
from typing import Any

from .. import ops
from .._typing import Array
from ..ops import Out
from ..runtime.flat import Flat
from ..validation import number
from .base import Context, Dx, Layer, Placed, Pullback, chain, register


@register
class Dropout(Layer):
    """In training y = x / (1 - rate) with probability 1 - rate, else 0; in evaluation y = x.

    The mask depends on the network's seed, the step, this layer's place, the sample's index in the data set and the
    feature. So it is the same on every backend, for every order of the batch and for micro-batches. Put it after a
    BatchNorm: directly before one, it makes the training statistics differ from those of the evaluation.

    Args:
        rate: the share of values set to zero, in [0, 1).
    """

    settable = frozenset({"rate"})

    def __init__(self, rate: float) -> None:
        self.rate = number("Dropout", "rate", rate, least=0, below=1, cure="It is the share of values set to zero.")

    def __repr__(self) -> str:
        return f"Dropout({self.rate:g})"

    def config(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def placed(self, place: str, dropouts: Iterator[int]) -> Placed:
        return Placed(self, place, dropout=next(dropouts))

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        if not (run.training and run.drops):
            return chain((), x, run)
        options: dict[str, Any] = {"seed": run.seed, "layer": run.at(self).dropout, "rate": self.rate}
        y, keep = run(ops.dropout, x, run.step, run.samples, **options)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            if dx is False:
                return None
            into = {"out": dx} if isinstance(dx, Out) else None
            return run(ops.dropout_backward, dy, keep, rate=self.rate, into=into)

        return y, pullback
