"""What every layer is: parameters, the ops it calls, a forward that returns the way back."""

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Into
from ..runtime.flat import Flat, Handle
from ..runtime.memory import Fresh

Dx = bool | Into
R = TypeVar("R")


class Pullback(Protocol):
    """From the gradient of the output to that of the input; gradients of parameters go into `grads`.

    dx True: returned as a new array; False: not computed; Into: stored there, or added to what is there. Neither dy nor
    the layer's input is overwritten.
    """

    def __call__(self, dy: Array, grads: Flat, *, dx: Dx = True) -> Array: ...


@dataclass(frozen=True)
class Pass:
    """One forward pass: its mode, where outputs live, where proposals of statistics go, what dropout is keyed by."""

    training: bool
    memory: Fresh
    proposals: Flat
    seed: int
    step: Array
    samples: Array
    drops: bool = True
    products: str = "highest"  # the precision that products are asked for

    def __call__(self, op: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run an op in the memory of this pass: `y = run(ops.affine, x, W, b)`."""
        return op(*args, memory=self.memory, **options)


class Changes:
    """How often attributes of a network's layers were set: steps recorded before hold the older ones."""

    count = 0


class Layer:
    """Parameters and the ops that they enter. A layer holds handles, its network the numbers; forward changes none."""

    label = ""  # "BatchNorm(100), layer 1": what error messages start with; the network sets it
    changes: "Changes | None" = None  # those of its network, which sets it

    def __setattr__(self, name: str, value: Any) -> None:
        if self.changes is not None:
            self.changes.count += 1
        super().__setattr__(name, value)

    def handles(self) -> dict[str, Handle]:
        """The layer's parameters and statistics by their names."""
        return {}

    def parts(self) -> "Iterable[Layer]":
        """The layers inside this one, for names and configuration."""
        return ()

    def features(self, inputs: int | None) -> int | None:
        """The width of the output for an input of that width, None for unknown; an error where they do not fit."""
        return inputs

    def takes(self) -> int | None:
        """The width that the input must have, None for any."""
        return None

    @property
    def keeps_width(self) -> bool:
        """Whether the output is as wide as the input, for every width."""
        return type(self).features is Layer.features

    def followed_by(self, after: "Layer") -> "tuple[Layer, Layer | None]":
        """(this layer, the next or None) once they are neighbours: settled when a network is built."""
        return self, after

    def config(self) -> dict[str, Any]:
        """The arguments that build this layer again, as JSON values."""
        raise InputError(
            f"{type(self).__name__}: the layer has no config(), so a network with it cannot be saved; give it one, "
            "and register the class with bnengine.layers.register"
        )

    def forward(self, x: Array, run: Pass) -> tuple[Array, Pullback]:
        """(output, pullback)."""
        raise NotImplementedError

    def changed(self, **changes: Any) -> Self:
        """A shallow copy: the same parameters, settled differently."""
        layer = copy(self)
        vars(layer).update(changes)
        return layer

    @property
    def name(self) -> str:
        """How error messages call the layer."""
        return self.label or repr(self)


def positive(owner: str, **sizes: int) -> None:
    """Refuse sizes that are not whole numbers from 1 up."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{owner}: {name} {value!r} is not a whole number from 1 up")


def fits(owner: str, expected: int, given: int | None) -> None:
    """Refuse an input of another width than the layer was made for."""
    if given is not None and given != expected:
        raise InputError(
            f"{owner}: the input has {given} features, the layer was made for {expected}; change one of the two"
        )


def widths(layers: Iterable[Layer], inputs: int | None) -> tuple[int | None, int | None]:
    """(features of the input, of the output), each layer checked against the one before; None for unknown.

    An unknown width is told by the first layer that needs one, as long as those before it keep the width.
    """
    width, told = inputs, inputs is not None
    for layer in layers:
        if not told:
            inputs = width = layer.takes()
            told = inputs is not None or not layer.keeps_width
        width = layer.features(width)
    return inputs, width


def chain(layers: Iterable[Layer], x: Array, run: Pass) -> tuple[Array, Pullback]:
    """Loop forward; the pullback is the loop reversed."""
    pulls: list[Pullback] = []
    for layer in layers:
        y, pull = layer.forward(x, run)
        if y.dtype != x.dtype:
            raise InputError(
                f"{layer.name}: the output is {y.dtype} for an input of {x.dtype}, and activations have one dtype; "
                "return it in the dtype of the input"
            )
        pulls.append(pull)
        x = y

    def pullback(dy: Array, grads: Flat, *, dx: Dx = True) -> Array:
        if not pulls:
            return deliver(dy, dx, run.memory)
        for i in reversed(range(len(pulls))):
            dy = pulls[i](dy, grads, dx=dx if i == 0 else True)
        return dy

    return x, pullback


def deliver(gradient: Array, dx: Dx, memory: Fresh) -> Array:
    """A gradient that is ready, where it was asked for: the array itself, nothing, or stored in a destination."""
    if not isinstance(dx, Into):
        return gradient if dx else None
    into = {"out": dx}
    return memory.run(ops.activation_backward, gradient, gradient, gradient, kind="identity", into=into)


def settle(layers: Iterable[Layer]) -> list[Layer]:
    """Let each layer meet its neighbour, once."""
    settled: list[Layer] = []
    for given in layers:
        layer: Layer | None = given
        if settled:
            settled[-1], layer = settled[-1].followed_by(given)
        if layer is not None:
            settled.append(layer)
    return settled
