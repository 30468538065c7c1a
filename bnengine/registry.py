"""Registries: classes by name. Choices, configurations and error texts follow from what is registered.

A class registers itself with a decorator:

    @LOSSES.register
    @dataclass(frozen=True)
    class Hinge(LossFunction): ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from typing import Any, TypeVar

from .errors import InputError
from .renamed import new_word
from .validation import choice

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[Any])


class Registry(Mapping[str, type[T]]):
    """Classes by name, in the order of their registration.

    Args:
        what: the noun that errors begin with, such as "loss".
        key: the entry of a configuration that holds the name.
    """

    def __init__(self, what: str, *, key: str = "name") -> None:
        self.what, self.key = what, key
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: Kind) -> Kind:
        """Add a class by its `name`, or by its class name; usable as a decorator."""
        self._classes[getattr(cls, "name", cls.__name__) if self.key == "name" else cls.__name__] = cls
        return cls

    def __getitem__(self, name: str) -> type[T]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def find(self, name: Any) -> type[T]:
        """Return the class of a name; InputError for another one."""
        return self._classes[choice(self.what, self.key, name, self)]

    def make(self, config: str | Mapping[str, Any]) -> T:
        """Return an object for a name or a configuration, {"name": ..., option: value}.

        Raises:
            InputError: an unknown name or option, or a missing option.
        """
        config = {self.key: config} if isinstance(config, str) else config
        options: dict[str, Any] = {new_word(self.what, self.what, option): value for option, value in config.items()}
        name = options.pop(self.key, None)
        accepted = options_of(self.find(name))
        if unknown := sorted(options.keys() - accepted.keys()):
            takes = ", ".join(accepted) or "none"
            raise InputError(f"{self.what}: {name} has no option {unknown[0]!r}. It takes {takes}.")
        if missing := [option for option in needed(self.find(name)) if option not in options]:
            raise InputError(f"{self.what}: {name} needs {', '.join(missing)}. Give a value.")
        return self.find(name)(**options)

    def takers(self, option: str) -> list[str]:
        """Return the names of the classes that have an option."""
        return [name for name, cls in self.items() if option in options_of(cls)]


def options_of(cls: type[Any]) -> Mapping[str, Parameter]:
    """Return the arguments of a class by name, without the old names of a dataclass's fields."""
    every = signature(cls).parameters
    return {f.name: every[f.name] for f in fields(cls) if f.init} if is_dataclass(cls) else every


def needed(cls: type[Any]) -> list[str]:
    """Return the arguments of a class that have no default."""
    return [name for name, option in options_of(cls).items() if option.default is Parameter.empty]
