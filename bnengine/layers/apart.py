"""Layers that tell what passes them: copies of a network's, activations standing apart from those that apply them."""

from collections.abc import Callable, Iterable
from typing import Any

from .._typing import Array
from ..runtime.flat import Flat
from .activation import Activation
from .base import Dx, Layer
from .norm.batch_norm import BatchNorm
from .residual import Residual

See = Callable[[str, Layer, Array], Callable[[Array], None] | None]


def watched(layers: Iterable[Layer], see: See) -> list[Layer]:
    """Copies of a network's settled layers, with the same parameters, to be chained in a pass.

    see(place, layer, y) is called with each layer's output, those inside a Residual too; what it returns, with the
    gradient of that output on the way back. The place is that of the user's list of layers: "0", "1", "1.0" ... A
    Residual itself is not told; a BatchNorm at the end of its body gives the sum.
    """
    made: list[Layer] = []
    for layer in layers:
        made += _apart(layer, see)
    return made


def _apart(layer: Layer, see: See) -> list[Layer]:
    place = layer.label.rpartition(" ")[2]
    if isinstance(layer, Residual):
        *body, last = watched([*layer.body, layer.last], see)
        if not (layer.sums and isinstance(last, Activation)):
            return [layer.changed(body=body, last=last)]
        behind = _telling(Activation(last.kind, slope=last.slope), _next(place), see)  # of the sum
        return [layer.changed(body=body[:-1], last=body[-1]), behind]
    kind = getattr(layer, "activation", "identity")
    if kind == "identity":
        return [_telling(layer, place, see)]
    after = Activation(kind, slope=getattr(layer, "slope", None))
    return [_telling(layer.changed(activation="identity"), place, see), _telling(after, _next(place), see)]


def _next(place: str) -> str:
    """Where an activation stands that became part of the layer at `place`: right behind it."""
    before, dot, last = place.rpartition(".")
    return f"{before}{dot}{int(last) + 1}"


def _telling(layer: Layer, place: str, see: See) -> Layer:
    """A copy whose forward tells of its output, and its pullback of the gradient."""
    name = "forward_added" if isinstance(layer, BatchNorm) else "forward"
    forward = getattr(layer, name)

    def telling(*args: Any) -> tuple[Array, Any]:
        y, pull = forward(*args)
        back = see(place, layer, y)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Any:
            if back is not None:
                back(dy)
            return pull(dy, grads, dx=dx)

        return y, pullback

    return layer.changed(**{name: telling})
