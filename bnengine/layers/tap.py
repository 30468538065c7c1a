"""Instrumented layers of a network: a callback gets every output and its gradient; activations are split off."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from .._typing import Array
from ..runtime.flat import Flat
from .activation import Activation, applies_none
from .base import Context, Dx, Placed, Pullback

See = Callable[[Placed, Array], Callable[[Array], None] | None]


def tap(placed: Iterable[Placed], see: See) -> list[Placed]:
    """Return the fused layers of a network, instrumented, for `chain`.

    A Residual itself is not instrumented: a BatchNorm at the end of its body outputs the sum.

    Args:
        placed: `network.fused`.
        see: called with each layer and its output, also inside a Residual. If it returns a function, that is called
            with the gradient of the output in the backward pass.
    """
    tapped: list[Placed] = []
    for here in placed:
        tapped += _split(here, see)
    return tapped


def _split(here: Placed, see: See) -> list[Placed]:
    if here.body:
        *body, last = tap(here.body, see)
        if here.sums and isinstance(last.layer, Activation):  # of the sum
            return [replace(here, body=tuple(body)), last]
        return [replace(here, body=(*body, last))]
    if here.after is None or applies_none(here):
        return [_tapped(here, see)]
    return [_tapped(replace(here, after=None), see), _tapped(here.after, see)]


@dataclass(frozen=True)
class _Tapped(Placed):
    see: See = lambda *_: None

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        return self._seen(*super().forward(x, run))

    def forward_added(
        self, x: Array, add: Array | None, run: Context
    ) -> tuple[Array, Callable[..., tuple[Array, Array]]]:
        return self._seen(*super().forward_added(x, add, run))

    def _seen(self, y: Array, pull: Callable[..., Any]) -> tuple[Array, Callable[..., Any]]:
        back = self.see(self, y)

        def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Any:
            if back is not None:
                back(dy)
            return pull(dy, grads, dx=dx)

        return y, pullback


def _tapped(here: Placed, see: See) -> Placed:
    return _Tapped(**{field.name: getattr(here, field.name) for field in fields(Placed)}, see=see)
