"""What every layer is: parameters, the ops it calls, a forward that returns the way back."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Protocol, TypeVar, cast
from weakref import WeakSet

from .. import ops
from .._typing import Array
from ..errors import InputError
from ..ops import Out
from ..runtime.flat import Changes, Flat, Handle
from ..runtime.memory import Memory

Dx = bool | Out
R = TypeVar("R")


class Pullback(Protocol):
    """From the gradient of the output to that of the input; gradients of parameters go into `grads`.

    dx True: returned as a new array; False: not computed; Out: stored there, or added to what is there. Neither dy nor
    the layer's input is overwritten.
    """

    def __call__(self, dy: Array, grads: Flat, *, dx: Dx = True) -> Array: ...


@dataclass(frozen=True)
class Context:
    """One forward pass: its mode, where outputs live, where pending statistics go, what dropout is keyed by."""

    training: bool
    memory: Memory
    pending: Flat
    seed: int
    step: Array
    samples: Array
    drops: bool = True
    products: str = "highest"  # the precision that products are asked for
    here: "Placed | None" = None  # where the layer stands that runs now

    def __call__(self, op: Callable[..., R], *args: Any, **options: Any) -> R:
        """Run an op in the memory of this pass: `y = run(ops.affine, x, W, b)`."""
        return op(*args, memory=self.memory, **options)

    def moved(self, here: "Placed") -> "Context":
        """The same pass at a layer's place; `dataclasses.replace` would take longer than a small op."""
        run = object.__new__(Context)
        vars(run).update(vars(self), here=here)
        return run

    def at(self, layer: "Layer") -> "Placed":
        """The place of a layer that runs now; one that another layer calls itself has none."""
        here = self.here
        return here if here is not None and here.layer is layer else Placed(layer)


class Layer:
    """Parameters and the ops that they enter. A layer holds handles, its network the numbers; forward changes none.

    An attribute that is set takes effect at the next step, also where steps are recorded.
    """

    settable: ClassVar[frozenset[str]] = frozenset()  # arguments that may change: the constructor checks a new value
    fixed: ClassVar[frozenset[str]] = frozenset()  # attributes that a network is built from
    label = ""  # "BatchNorm(100), layer 1": what error messages start with; the network sets it
    changes: "WeakSet[Changes] | None" = None  # one for each network with this layer

    def __setattr__(self, name: str, value: Any) -> None:
        if not self.changes:
            super().__setattr__(name, value)
        elif name in self.fixed:
            raise InputError(
                f"{self.name}: {name} is fixed in a network, got {value!r}. Make a new layer and a new network with it."
            )
        elif name in self.settable:
            self._set(name, value)
        elif not hasattr(self, name) and vars(type(self)).keys() & {"settable", "fixed"}:
            known = f"What can be set: {', '.join(sorted(self.settable)) or 'nothing'}"
            raise InputError(f"{self.name}: there is no attribute {name}, got {value!r}. {known}.")
        else:
            super().__setattr__(name, value)
            self._count()

    def _set(self, name: str, value: Any) -> None:
        """Set an argument if the constructor takes it, and if the networks keep the parameters that they have."""
        own: Any = next(cls for cls in type(self).__mro__ if "settable" in vars(cls))
        before, checked = getattr(self, name), getattr(own(**(own.config(self) | {name: value})), name)
        super().__setattr__(name, checked)
        self._count()
        for changes in self.changes or ():
            if conflict := changes.conflict():
                super().__setattr__(name, before)
                self._count()
                raise InputError(f"{self.name}: {name} {value!r} {conflict}. Build a new network with it.")

    def _count(self) -> None:
        for changes in self.changes or ():
            changes.count += 1

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("changes", "label")}  # a copy is in no network

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

    def placed(self, place: str, dropouts: "Iterator[int]") -> "Placed":  # noqa: ARG002
        """The layer at a place of a network. `dropouts` numbers the network's dropouts."""
        return Placed(self, place)

    def fuse_with(self, here: "Placed", after: "Placed") -> "tuple[Placed, Placed | None]":
        """(this layer at its place, the next one or None), once they are neighbors; most layers fuse with none."""
        return here, after

    def config(self) -> dict[str, Any]:
        """The arguments that build this layer again, as JSON values."""
        raise InputError(
            f"{type(self).__name__}: the layer has no config(), so a network with it cannot be saved; give it one, "
            "and register the class with bnengine.layers.register"
        )

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        """(output, pullback)."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """How error messages call the layer."""
        return self.label or repr(self)


@dataclass(frozen=True)
class Placed:
    """A layer where it stands in a network, and what it computes along with its neighbors.

    Args:
        layer: the user's layer.
        place: "0", or "1.0" inside layer 1.
        after: the layer that follows, where its op computes both.
        cancelled: the names of parameters that are left out here, since the next layer subtracts them.
        dropout: its number among the network's dropouts, which keys its mask.
        body: the layers inside, of a Residual.
        sums: whether the last of them adds the input in its own op.
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
        """How error messages call the layer here."""
        return f"{self.layer!r}, layer {self.place}" if self.place else self.layer.name

    def handles(self) -> dict[str, Handle]:
        """The parameters and statistics that count here, by their names."""
        return {name: h for name, h in self.layer.handles().items() if name not in self.cancelled}

    def forward(self, x: Array, run: Context) -> tuple[Array, Pullback]:
        """(output, pullback) of the layer, and of what it computes along with it."""
        return self.layer.forward(x, run.moved(self))

    def forward_added(
        self, x: Array, add: Array | None, run: Context
    ) -> tuple[Array, Callable[..., tuple[Array, Array]]]:
        """As `forward`, of a layer that adds `add` in its op; the pullback returns the gradients of both."""
        return cast(Any, self.layer).forward_added(x, add, run.moved(self))  # type: ignore[no-any-return]


def fits(owner: str, expected: int, given: int | None) -> None:
    """Refuse an input of another width than the layer was made for."""
    if given is not None and given != expected:
        raise InputError(
            f"{owner}: the input has {given} features, the layer was made for {expected}; change one of the two"
        )


def labelled(layer: Layer, place: str) -> None:
    """Give a layer, and those inside it, the label of a place."""
    vars(layer)["label"] = f"{layer!r}, layer {place}"
    for i, part in enumerate(layer.parts()):
        labelled(part, f"{place}.{i}")


def widths(layers: Iterable[Layer], inputs: int | None, *, label: bool = False) -> tuple[int | None, int | None]:
    """(features of the input, of the output), each layer checked against the one before; None for unknown.

    An unknown width is inferred from the first layer that requires one, if all layers before it preserve width.
    `label`: name each layer by its place first, for the messages.
    """
    width, known = inputs, inputs is not None
    for i, layer in enumerate(layers):
        if label:
            labelled(layer, f"{i}")
        if not known:
            inputs = width = layer.takes()
            known = inputs is not None or not layer.keeps_width
        width = layer.features(width)
    return inputs, width


def chain(layers: Iterable[Layer | Placed], x: Array, run: Context) -> tuple[Array, Pullback]:
    """Loop forward; the pullback is the loop reversed."""
    pulls: list[Pullback] = []
    for layer in layers:
        here = layer if isinstance(layer, Placed) else Placed(layer)
        y, pull = here.forward(x, run)
        if y.dtype != x.dtype:
            raise InputError(
                f"{here.name}: the output is {y.dtype} for an input of {x.dtype}, and activations have one dtype; "
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


def deliver(gradient: Array, dx: Dx, memory: Memory) -> Array:
    """A gradient that is ready, where it was asked for: the array itself, nothing, or stored in a destination."""
    if not isinstance(dx, Out):
        return gradient if dx else None
    into = {"out": dx}
    return memory.run(ops.activation_backward, gradient, gradient, gradient, kind="identity", into=into)


def fuse(layers: Iterable[Layer], prefix: str = "", dropouts: Iterator[int] | None = None) -> tuple[Placed, ...]:
    """The layers at their places, each fused with the neighbors that its op computes."""
    dropouts = count() if dropouts is None else dropouts
    fused: list[Placed] = []
    for i, layer in enumerate(layers):
        here: Placed | None = layer.placed(f"{prefix}{i}", dropouts)
        if fused and here is not None:
            fused[-1], here = fused[-1].layer.fuse_with(fused[-1], here)
        if here is not None:
            fused.append(here)
    return tuple(fused)
