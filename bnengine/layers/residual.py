"""Residual: y = x + body(x)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Out
from ..runtime.flat import Flat
from .activation import Activation, applies_none
from .base import Context, Dx, Layer, Placed, Pullback, chain, deliver, fuse, register, widths
from .norm.batch_norm import BatchNorm


@register
class Residual(Layer):
    """y = x + body(x); the body is any layers that preserve the width (He et al. 2016).

    If the body ends in a BatchNorm, its op also computes the sum, and an activation after it.

    Args:
        body: the layers, at least one. x and y are (..., features).

    Raises:
        InputError: no layer, or what is not a layer; a body that changes the width, when the network is built.
    """

    keeps_width = True
    fixed = frozenset({"body"})

    def __init__(self, *body: Layer) -> None:
        if not body:
            raise InputError("Residual(): the body is empty. Give it at least one layer.")
        for layer in body:
            if not isinstance(layer, Layer):
                raise InputError(
                    f"Residual: a part must be a layer, got {layer!r}. Give objects such as Dense(64, 64)."
                )
        self.body = body

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(repr, self.body))})"

    def parts(self) -> Iterable[Layer]:
        return self.body

    def config(self) -> dict[str, Any]:
        return {}

    def takes(self) -> int | None:
        return widths(self.body, None)[0]

    def features(self, inputs: int | None) -> int | None:
        inputs, width = widths(self.body, inputs)
        if inputs is not None and width is not None and width != inputs:
            raise InputError(f"{self.name}: the body must keep the width of {inputs} features, got {width}.")
        return width

    def placed(self, place: str, dropouts: Iterator[int]) -> Placed:
        """Place the body; a BatchNorm at its end, without an activation, adds the input in its op."""
        body = fuse(self.body, f"{place}." if place else "", dropouts)
        sums = isinstance(body[-1].layer, BatchNorm) and applies_none(body[-1])
        return Placed(self, place, body=body, sums=sums)

    def fuse_with(self, here: Placed, after: Placed) -> tuple[Placed, Placed | None]:
        if not (here.sums and isinstance(after.layer, Activation)):
            return here, after
        *body, last = here.body
        last, rest = last.layer.fuse_with(last, after)
        return replace(here, body=(*body, last)), rest

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        here = run.at(self)
        if not here.body:  # it runs inside a layer that is not bnengine's
            here = self.placed("", repeat(0))
        return self._sum_in_batch_norm(here, x, run) if here.sums else self._sum_apart(here, x, run)

    def _sum_in_batch_norm(self, here: Placed, x: Array, run: Context) -> tuple[Array, Pullback]:
        *body, last = here.body
        h, pull = chain(body, x, run)
        y, pull_last = last.forward_added(h, x, run)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            dh, dskip = pull_last(dy, grads)
            if dx is False:
                return pull(dh, grads, dx=False)
            # dskip is a new array, so the body's first op adds its own gradient to it
            return deliver(pull(dh, grads, dx=Out(dskip, adds=True)), dx, run.memory)

        return y, pullback

    def _sum_apart(self, here: Placed, x: Array, run: Context) -> tuple[Array, Pullback]:
        h, pull = chain(here.body, x, run)
        y = run(ops.total, h, x)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            if dx is False:
                return pull(dy, grads, dx=False)
            into = {"out": dx} if isinstance(dx, Out) else None
            return run(ops.total, pull(dy, grads), dy, into=into)

        return y, pullback
