"""Between a user's list of layers and a network: places, names, configurations, and which handles are still used."""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from ..errors import InputError
from ..runtime.flat import Handle
from .activation import Activation
from .base import Changes, Layer
from .dense import Dense
from .dropout import Dropout
from .norm.batch_norm import BatchNorm
from .residual import Residual

_LAYERS: dict[str, type[Layer]] = {}


def register(cls: type[Layer]) -> type[Layer]:
    """Make a layer's class known by its name, so that networks with it can be loaded; usable as a decorator."""
    _LAYERS[cls.__name__] = cls
    return cls


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
            configs.append({"type": "Residual", "body": _config_of(layer.given, f"{place}.", seen)})
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
            elif kind in _LAYERS:
                layer = _LAYERS[kind](**options)
            else:
                raise InputError(
                    f"layers: no layer called {kind!r}; import the module that registers it before loading"
                )
        made[place] = layer
        layers.append(layer)
    return layers


def labelled(layers: Iterable[Layer], prefix: str, dropouts: "count[int]", changes: Changes) -> Iterator[Layer]:
    """Copies that know their place, for error messages and for dropout's key, and where to count their changes."""
    for i, layer in enumerate(layers):
        made = layer.changed(label=f"{layer!r}, layer {prefix}{i}", changes=changes)
        if isinstance(made, Residual):
            made.arrange(tuple(labelled(made.given, f"{prefix}{i}.", dropouts, changes)))
        if isinstance(made, Dropout):
            made.index = next(dropouts)
        yield made


def named_handles(layers: Iterable[Layer]) -> dict[str, Handle]:
    """Handles by name; one used twice has its first name."""
    names: dict[Handle, str] = {}
    for place, layer in walk(layers):
        for attribute, handle in layer.handles().items():
            names.setdefault(handle, f"{place}.{attribute}")
    return {name: handle for handle, name in names.items()}


def used_handles(layers: Iterable[Layer]) -> set[Handle]:
    used: set[Handle] = set()
    for layer in layers:
        used.update(layer.handles().values())
        if isinstance(layer, Residual):
            used |= used_handles([*layer.body, layer.last])
    return used
