"""Between a user's list of layers and a network: places, names, configurations, and which handles are still used."""

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakSet

from ..errors import InputError
from ..registry import Registry
from ..runtime.flat import Changes, Handle
from .activation import Activation
from .base import Layer, Placed, fuse
from .dense import Dense
from .dropout import Dropout
from .norm.batch_norm import BatchNorm
from .residual import Residual

LAYERS = Registry[Layer]("layer", key="type")


def register(cls: type[Layer]) -> type[Layer]:
    """Make a layer's class known by its name, so that networks with it can be loaded; usable as a decorator."""
    return LAYERS.register(cls)


for _cls in (Dense, BatchNorm, Activation, Dropout):
    register(_cls)


def walk(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """(place, layer) of every layer, those inside others too: "0", "1", "1.0", ..."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        yield from walk(layer.parts(), f"{prefix}{i}.")


def config_of(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """JSON values that build the layers again; a layer that stands twice is written once and referred to."""
    return _config_of(layers, "", {})


def _config_of(layers: Iterable[Layer], prefix: str, seen: dict[int, str]) -> list[dict[str, Any]]:
    configs: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        place = f"{prefix}{i}"
        if id(layer) in seen:
            configs.append({"same_as": seen[id(layer)]})
        elif isinstance(layer, Residual):
            configs.append({"type": "Residual", "body": _config_of(layer.body, f"{place}.", seen)})
        else:
            configs.append({"type": type(layer).__name__, **layer.config()})
        seen.setdefault(id(layer), place)
    return configs


def build(configs: list[dict[str, Any]]) -> list[Layer]:
    """The layers that `config_of` described."""
    return _build(configs, "", {})


def _build(configs: list[dict[str, Any]], prefix: str, made: dict[str, Layer]) -> list[Layer]:
    layers = []
    for i, config in enumerate(configs):
        options, place = dict(config), f"{prefix}{i}"
        if "same_as" in options:
            layer = made[options["same_as"]]
        else:
            kind = options.pop("type", None)
            if kind == "Residual":
                layer = Residual(*_build(options["body"], f"{place}.", made))
            elif kind in LAYERS:
                layer = LAYERS[kind](**options)
            else:
                raise InputError(
                    f"layers: no layer called {kind!r}; import the module that registers it before loading"
                )
        made[place] = layer
        layers.append(layer)
    return layers


def named_handles(layers: Iterable[Layer]) -> dict[str, Handle]:
    """Handles by name; one used twice has its first name."""
    names: dict[Handle, str] = {}
    for place, layer in walk(layers):
        for attribute, handle in layer.handles().items():
            names.setdefault(handle, f"{place}.{attribute}")
    return {name: handle for handle, name in names.items()}


def used_handles(placed: Iterable[Placed]) -> set[Handle]:
    """The handles that count at any of these places."""
    used: set[Handle] = set()
    for here in placed:
        used.update(here.handles().values())
        used |= used_handles(here.body if here.after is None else (*here.body, here.after))
    return used


class Fusion(Changes):
    """A network's layers as a step runs them: derived from the user's layers, anew after each change of one."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers, self._placed = layers, fuse(layers)
        self.handles = named_handles(layers)
        self._used, self._seen = used_handles(self._placed), self.count

    @property
    def placed(self) -> tuple[Placed, ...]:
        """The layers at their places, fused with their neighbors."""
        if self._seen != (count := self.count):
            self._placed = fuse(self.layers)
            self._seen = count
        return self._placed

    @property
    def cancelled(self) -> list[str]:
        """The names of the biases that the network has not, since a BatchNorm subtracts them."""
        return [name for name, h in self.handles.items() if h not in self._used]

    def conflict(self) -> str:
        changed = used_handles(self.placed) ^ self._used
        names = ", ".join(name for name, h in self.handles.items() if h in changed)
        return names and f"decides whether the network has {names}, which is fixed once it is built"

    def attach(self) -> None:
        """Count from now on what is set on the layers and their handles."""
        for one in (*(layer for _, layer in walk(self.layers)), *self.handles.values()):
            vars(one).setdefault("changes", WeakSet()).add(self)
