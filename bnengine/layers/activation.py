"""Activation: an element-wise g(x)."""

from typing import Any

from .. import ops
from .._typing import Array
from ..ops import Out
from ..ops.activations import check_activation, slope_of
from ..runtime.flat import Flat
from .base import Context, Dx, Layer, Placed, Pullback, register


@register
class Activation(Layer):
    """y = g(x), with g one of `bnengine.ops.activations.ACTIVATIONS`, such as "relu".

    Directly after a Dense or BatchNorm it becomes part of that layer's op, which gives the same numbers in fewer passes
    over memory.

    Args:
        kind: the name of g.
        slope: the parameter of a g that has one, such as "leaky_relu"; None for its default.
    """

    settable = frozenset({"kind", "slope"})

    def __init__(self, kind: str, *, slope: float | None = None) -> None:
        check_activation("Activation", kind, slope, name="kind")
        self.kind, self._slope = str(kind), None if slope is None else float(slope)

    @property
    def slope(self) -> float:
        """The parameter of g; its default if None was given."""
        return slope_of(self.kind, self._slope)

    @slope.setter
    def slope(self, slope: float | None) -> None:
        check_activation(self.name, self.kind, slope, name="kind")
        self._slope = None if slope is None else float(slope)

    def __repr__(self) -> str:
        return f"Activation({self.kind!r})"

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "slope": self.slope}

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        options: dict[str, Any] = {"kind": self.kind, "slope": self.slope}
        y = run(ops.activation, x, **options)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
            if dx is False:
                return None
            into = {"out": dx} if isinstance(dx, Out) else None
            return run(ops.activation_backward, dy, x, y, into=into, **options)

        return y, pullback


_NONE: dict[str, Any] = {"activation": "identity", "slope": slope_of("identity")}


def applied(here: Placed) -> dict[str, Any]:
    """Return the activation that a layer's op applies at this place, as the op's arguments."""
    after = None if here.after is None else here.after.layer
    if isinstance(after, Activation):
        return {"activation": after.kind, "slope": after.slope}
    return _NONE.copy()


def applies_none(here: Placed) -> bool:
    """Return whether a layer's op applies no activation at this place, or the identity."""
    return bool(applied(here)["activation"] == "identity")
