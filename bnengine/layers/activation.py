"""Activation: an element-wise g(x)."""

from typing import Any

from .. import ops
from .._typing import Array
from ..ops import Into
from ..ops.activations import check_activation, slope_of
from ..runtime.flat import Flat
from .base import Dx, Layer, Pass, Pullback


class Activation(Layer):
    """y = g(x), with g one of `bnengine.ops.activations.ACTIVATIONS`, such as "relu".

    Directly after a Dense or BatchNorm it becomes part of that layer's op, which gives the same numbers in fewer
    passes.

    Args:
        kind: the name of g.
        slope: the parameter of a g that has one, such as "leaky_relu"; None for its default.
    """

    def __init__(self, kind: str, *, slope: float | None = None) -> None:
        check_activation("Activation", kind, slope)
        self.kind, self.slope = kind, slope_of(kind, slope)

    def __repr__(self) -> str:
        return f"Activation({self.kind!r})"

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "slope": self.slope}

    def forward(self, x: Array, run: Pass) -> tuple[Array, Pullback]:
        options: dict[str, Any] = {"kind": self.kind, "slope": self.slope}
        y = run(ops.activation, x, **options)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            if dx is False:
                return None
            into = {"out": dx} if isinstance(dx, Into) else None
            return run(ops.activation_backward, dy, x, y, into=into, **options)

        return y, pullback
