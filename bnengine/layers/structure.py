"""From a user's list of layers to a network: places, names, configurations, and the handles in use."""

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakSet

from ..errors import InputError
from ..runtime.flat import Changes, Handle
from .base import LAYERS, Layer, Placed, fuse


def walk(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield (place, layer) of every layer, including those inside others: "0", "1", "1.0", ..."""
    for i, layer in enumerate(layers):
        yield f"{prefix}{i}", layer
        yield from walk(layer.parts(), f"{prefix}{i}.")


def config_of(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """Return JSON values for `build`: layers inside a layer are its `body`; one used twice is written once."""
    return _config_of(layers, "", {})


def _config_of(layers: Iterable[Layer], prefix: str, seen: dict[int, str]) -> list[dict[str, Any]]:
    configs: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        place = f"{prefix}{i}"
        if id(layer) in seen:
            configs.append({"same_as": seen[id(layer)]})
        else:
            body = _config_of(layer.parts(), f"{place}.", seen)
            configs.append({"type": type(layer).__name__, **layer.config(), **({"body": body} if body else {})})
        seen.setdefault(id(layer), place)
    return configs


def build(configs: list[dict[str, Any]]) -> list[Layer]:
    """Return the layers that `config_of` described."""
    return _build(configs, "", {})


def _build(configs: list[dict[str, Any]], prefix: str, built: dict[str, Layer]) -> list[Layer]:
    layers = []
    for i, config in enumerate(configs):
        options, place = dict(config), f"{prefix}{i}"
        if "same_as" in options:
            layer = built[options["same_as"]]
        else:
            kind = options.pop("type", None)
            if kind not in LAYERS:
                raise InputError(
                    f"layers: no layer called {kind!r}. Import the module that registers it before loading."
                )
            layer = LAYERS[kind](*_build(options.pop("body", []), f"{place}.", built), **options)
        built[place] = layer
        layers.append(layer)
    return layers


def named_handles(layers: Iterable[Layer]) -> dict[str, Handle]:
    """Return handles by name; one used twice has its first name."""
    names: dict[Handle, str] = {}
    for place, layer in walk(layers):
        for attribute, handle in layer.handles().items():
            names.setdefault(handle, f"{place}.{attribute}")
    return {name: handle for handle, name in names.items()}


def used_handles(placed: Iterable[Placed]) -> set[Handle]:
    """Return the handles that count at any of these places."""
    used: set[Handle] = set()
    for here in placed:
        used.update(here.handles().values())
        used |= used_handles(here.body if here.after is None else (*here.body, here.after))
    return used


class Fusion(Changes):
    """A network's layers as a step runs them: derived from the user's layers, and again after each change of one."""

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
        """The names of the biases that the network leaves out, since a BatchNorm subtracts them."""
        return [name for name, h in self.handles.items() if h not in self._used]

    def conflict(self) -> str:
        changed = used_handles(self.placed) ^ self._used
        names = ", ".join(name for name, h in self.handles.items() if h in changed)
        return names and f"decides whether the network has {names}, which is fixed once it is built"

    def attach(self) -> None:
        """Count writes to attributes of the layers and their handles from now on."""
        for owner in (*(layer for _, layer in walk(self.layers)), *self.handles.values()):
            vars(owner).setdefault("changes", WeakSet()).add(self)
