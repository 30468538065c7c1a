"""Base class of layers: parameters, the ops they call, and a forward that returns its pullback."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from types import NoneType
from typing import Any, ClassVar, Protocol, TypeVar, cast
from weakref import WeakSet

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Out
from ..registry import Registry
from ..runtime.flat import Changes, Flat, Handle
from ..runtime.memory import Memory

Dx = bool | Out
R = TypeVar("R")
L = TypeVar("L", bound="Layer")


class Pullback(Protocol):
    """Maps the gradient of the output to that of the input; gradients of parameters go into `grads`.

    Neither dy nor the layer's input is overwritten.

    Args:
        dy: the gradient at the output.
        grads: the buffer of the parameters' gradients.
        dx: True returns the gradient of the input as a new array; False does not compute it; an Out stores it there.
    """

    def __call__(self, dy: Array, grads: Flat, *, dx: Dx = True) -> Array: ...


@dataclass(frozen=True)
class Context:
    """One forward pass: its mode, its memory, and what its layers share.

    Attributes:
        training: whether BatchNorm normalizes by the batch and dropout drops.
        memory: where outputs are allocated.
        pending: the buffer of pending statistics.
        seed, step, samples: the key of dropout's masks.
        drops: whether dropout drops in training.
        products: the precision of matrix products.
        here: the place of the layer that runs now.
    """

    training: bool
    memory: Memory
    pending: Flat
    seed: int
    step: Array
    samples: Array
    drops: bool = True
    products: str = "highest"
    here: "Placed | None" = None

    def __call__(self, op: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run an op in the memory of this pass: `y = run(ops.affine, x, W, b)`."""
        return op(*args, memory=self.memory, **options)

    def moved(self, here: "Placed") -> "Context":
        """Return the same pass at a layer's place; `dataclasses.replace` would take longer than a small op."""
        run = object.__new__(Context)
        vars(run).update(vars(self), here=here)
        return run

    def at(self, layer: "Layer") -> "Placed":
        """Return the place of a layer that runs now; a layer that another one calls itself has none."""
        here = self.here
        return here if here is not None and here.layer is layer else Placed(layer)


class Layer:
    """Parameters and the ops that they enter.

    A layer holds handles, its network the numbers; forward changes none. A write to an attribute takes effect at the
    next step, also where steps are recorded, or raises InputError if it can no longer count.
    """

    settable: ClassVar[frozenset[str]] = frozenset()  # arguments that may change: the constructor checks a new value
    used_up: ClassVar[frozenset[str]] = frozenset()  # arguments that only the constructor reads
    fixed: ClassVar[frozenset[str]] = frozenset()  # attributes that a network is built from
    label = ""  # "BatchNorm(100), layer 1": what error messages start with; the network sets it
    changes: "WeakSet[Changes] | None" = None  # one for each network with this layer

    def __setattr__(self, name: str, value: Any) -> None:
        made = name in vars(self)
        replaced = False
        if made and name in self.fixed and not self.changes:  # in a network it is refused below
            replaced = not isinstance(value, (type(vars(self)[name]), NoneType))
        if replaced or (made and name in self.used_up):
            raise InputError(f"{self.name}: {name} is fixed in a layer, got {value!r}. Make a new layer with it.")
        if name in self.settable and (made or self.changes):
            self._set(name, value)
        elif not self.changes:
            super().__setattr__(name, value)
        elif name in self.fixed:
            raise InputError(
                f"{self.name}: {name} is fixed in a network, got {value!r}. Make a new layer and a new network with it."
            )
        elif not hasattr(self, name) and vars(type(self)).keys() & {"settable", "fixed"}:
            known = f"What can be set: {', '.join(sorted(self.settable)) or 'nothing'}"
            raise InputError(f"{self.name}: there is no attribute {name}, got {value!r}. {known}.")
        else:
            super().__setattr__(name, value)
            self._count()

    def _set(self, name: str, value: Any) -> None:
        """Set an argument if the constructor accepts it, and if the networks keep the parameters that they have."""
        declaring: Any = next(cls for cls in type(self).__mro__ if "settable" in vars(cls))
        before, checked = getattr(self, name), getattr(declaring(**(declaring.config(self) | {name: value})), name)
        super().__setattr__(name, checked)
        self._count()
        for changes in self.changes or ():
            if conflict := changes.conflict():
                super().__setattr__(name, before)
                self._count()
                raise InputError(f"{self.name}: {name} {conflict}, got {value!r}. Build a new network with it.")

    def _count(self) -> None:
        for changes in self.changes or ():
            changes.count += 1

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("changes", "label")}  # a copy is in no network

    def handles(self) -> dict[str, Handle]:
        """Return the layer's parameters and statistics by name."""
        return {}

    def parts(self) -> "Iterable[Layer]":
        """Return the layers inside this one: they are named, saved, and its constructor's positional arguments."""
        return ()

    def features(self, inputs: int | None) -> int | None:
        """Return the width of the output for an input width, None for unknown; InputError if they do not fit."""
        return inputs

    def takes(self) -> int | None:
        """Return the width that the input must have, None for any."""
        return None

    @property
    def keeps_width(self) -> bool:
        """Whether the output is as wide as the input, for every width."""
        return type(self).features is Layer.features

    def placed(self, place: str, dropouts: "Iterator[int]") -> "Placed":  # noqa: ARG002
        """Return the layer at a place of a network; `dropouts` numbers the network's dropouts."""
        return Placed(self, place)

    def fuse_with(self, here: "Placed", after: "Placed") -> "tuple[Placed, Placed | None]":
        """Return (this layer at its place, the next one or None if this layer's op computes it too)."""
        return here, after

    def config(self) -> dict[str, Any]:
        """Return the arguments that build this layer again, as JSON values."""
        raise InputError(
            f"{type(self).__name__}: the layer has no config(), so a network with it cannot be saved. Give it one, "
            "and register the class with bnengine.layers.register."
        )

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        """Return (output, pullback)."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The layer's name in error messages."""
        return self.label or repr(self)


LAYERS = Registry[Layer]("layer", key="type")


def register(cls: type[L]) -> type[L]:
    """Register a layer's class by its name, so that networks with it can be loaded; usable as a decorator."""
    return LAYERS.register(cls)


@dataclass(frozen=True)
class Placed:
    """A layer at a place of a network, and what it computes together with its neighbors.

    Args:
        layer: the user's layer.
        place: "0", or "1.0" inside layer 1.
        after: the next layer, if this one's op computes both.
        cancelled: the names of parameters that are left out here, since the next layer subtracts them.
        dropout: its number among the network's dropouts, which keys its mask.
        body: the layers inside, of a Residual.
        sums: whether the last of them adds the input in its op.
    """

    layer: Layer
    place: str = ""
    after: "Placed | None" = None
    cancelled: frozenset[str] = frozenset()
    dropout: int = 0
    body: "tuple[Placed, ...]" = ()
    sums: bool = False

    @property
    def name(self) -> str:
        """The layer's name in error messages about this place."""
        return f"{self.layer!r}, layer {self.place}" if self.place else self.layer.name

    def handles(self) -> dict[str, Handle]:
        """Return the parameters and statistics that count here, by name."""
        return {name: h for name, h in self.layer.handles().items() if name not in self.cancelled}

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        """Return (output, pullback) of the layer, and of what it computes together with its neighbors."""
        return self.layer.forward(x, run.moved(self))

    def forward_added(
        self, x: Array, add: Array | None, run: Context
    ) -> tuple[Array, Callable[..., tuple[Array, Array]]]:
        """As `forward`, of a layer that adds `add` in its op; the pullback returns the gradients of both."""
        return cast(Any, self.layer).forward_added(x, add, run.moved(self))  # type: ignore[no-any-return]


def fits(owner: str, expected: int, width: int | None) -> None:
    """Raise InputError for an input of another width than the layer was made for."""
    if width is not None and width != expected:
        raise InputError(
            f"{owner}: the input must have {expected} features, got {width}. Change the layer or the input."
        )


def labeled(layer: Layer, place: str) -> None:
    """Give a layer, and those inside it, the label of a place."""
    vars(layer)["label"] = f"{layer!r}, layer {place}"
    for i, part in enumerate(layer.parts()):
        labeled(part, f"{place}.{i}")


def widths(layers: Iterable[Layer], inputs: int | None, *, label: bool = False) -> tuple[int | None, int | None]:
    """Return (features of the input, of the output), each layer checked against the one before; None for unknown.

    An unknown width is inferred from the first layer that requires one, if all layers before it preserve width.

    Args:
        layers: in their order.
        inputs: features of the input.
        label: whether to label each layer by its place first, for the messages.
    """
    width, known = inputs, inputs is not None
    for i, layer in enumerate(layers):
        if label:
            labeled(layer, f"{i}")
        if not known:
            inputs = width = layer.takes()
            known = inputs is not None or not layer.keeps_width
        width = layer.features(width)
    return inputs, width


def chain(layers: Iterable[Layer | Placed], x: Array, run: Context) -> tuple[Array, Pullback]:
    """Run layers in their order; the pullback is the loop reversed."""
    pulls: list[Pullback] = []
    for layer in layers:
        here = layer if isinstance(layer, Placed) else Placed(layer)
        y, pull = here.forward(x, run)
        if y.dtype != x.dtype:
            raise InputError(
                f"{here.name}: the output must have the dtype of the input, {x.dtype}, got {y.dtype}. Convert it."
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


def deliver(gradient: Array, dx: Dx, memory: Memory) -> Array:
    """Return a finished gradient as `dx` of a pullback asks: the array itself, nothing, or stored in a destination."""
    if not isinstance(dx, Out):
        return gradient if dx else None
    into = {"out": dx}
    return memory.run(ops.activation_backward, gradient, gradient, gradient, kind="identity", into=into)


def fuse(layers: Iterable[Layer], prefix: str = "", dropouts: Iterator[int] | None = None) -> tuple[Placed, ...]:
    """Return the layers at their places, each fused with the neighbors that its op computes."""
    dropouts = count() if dropouts is None else dropouts
    fused: list[Placed] = []
    for i, layer in enumerate(layers):
        here: Placed | None = layer.placed(f"{prefix}{i}", dropouts)
        if fused and here is not None:
            fused[-1], here = fused[-1].layer.fuse_with(fused[-1], here)
        if here is not None:
            fused.append(here)
    return tuple(fused)
