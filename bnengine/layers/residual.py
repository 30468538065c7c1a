"""Residual: y = x + body(x)."""

from collections.abc import Iterable

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Into
from ..runtime.flat import Flat
from .activation import Activation
from .base import Dx, Layer, Pass, Pullback, chain, deliver, settle, widths
from .norm.batch_norm import BatchNorm


class Residual(Layer):
    """y = x + body(x), the body any layers that keep the width (He et al. 2016).

    Where the body ends in a BatchNorm, the sum, and an activation behind it, are part of that BatchNorm's op.
    """

    keeps_width = True

    def __init__(self, *body: Layer) -> None:
        if not body:
            raise InputError("Residual(): the body is empty; give it at least one layer")
        for layer in body:
            if not isinstance(layer, Layer):
                raise InputError(f"Residual: {layer!r} is not a layer; give objects such as Dense(64, 64)")
        self.arrange(body)

    def arrange(self, given: Iterable[Layer]) -> None:
        """Settle the body; a BatchNorm at its end, with no activation of its own, takes the sum."""
        self.given = tuple(given)
        *self.body, last = settle(self.given)
        self.last = last
        self.sums = isinstance(last, BatchNorm) and last.activation == "identity"

    def __repr__(self) -> str:
        return f"Residual({', '.join(map(repr, self.given))})"

    def parts(self) -> Iterable[Layer]:
        return self.given

    def takes(self) -> int | None:
        return widths(self.given, None)[0]

    def features(self, inputs: int | None) -> int | None:
        inputs, width = widths(self.given, inputs)
        if inputs is not None and width is not None and width != inputs:
            raise InputError(f"{self.name}: the body makes {width} features of {inputs}; both ways must have one width")
        return width

    def followed_by(self, after: Layer) -> tuple[Layer, Layer | None]:
        if not (self.sums and isinstance(after, Activation)):
            return self, after
        last, rest = self.last.followed_by(after)
        return self.changed(last=last), rest

    def forward(self, x: Array, run: Pass) -> tuple[Array, Pullback]:
        return self._sum_in_batch_norm(x, run) if self.sums else self._sum_apart(x, run)

    def _sum_in_batch_norm(self, x: Array, run: Pass) -> tuple[Array, Pullback]:
        assert isinstance(self.last, BatchNorm)
        h, pull = chain(self.body, x, run)
        y, pull_last = self.last.forward_added(h, x, run)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            dh, dskip = pull_last(dy, grads)
            if dx is False:
                return pull(dh, grads, dx=False)
            # dskip is a new array, so the body's first op adds its own gradient to it
            return deliver(pull(dh, grads, dx=Into(dskip, adds=True)), dx, run.memory)

        return y, pullback

    def _sum_apart(self, x: Array, run: Pass) -> tuple[Array, Pullback]:
        h, pull = chain([*self.body, self.last], x, run)
        y = run(ops.total, h, x)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            if dx is False:
                return pull(dy, grads, dx=False)
            into = {"out": dx} if isinstance(dx, Into) else None
            return run(ops.total, pull(dy, grads), dy, into=into)

        return y, pullback
