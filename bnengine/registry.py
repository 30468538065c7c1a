"""Registries: classes by name. Choices, configurations and error texts follow from what is registered.

A class registers itself once, with a decorator:

    @LOSSES.register
    @dataclass(frozen=True)
    class Hinge(LossFunction): ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from .errors import InputError
from .renamed import new_word

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
        """Add a class under its `name`, or under that of the class itself; usable as a decorator."""
        self._classes[getattr(cls, "name", cls.__name__) if self.key == "name" else cls.__name__] = cls
        return cls

    def __getitem__(self, name: str) -> type[T]:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def find(self, name: Any) -> type[T]:
        """The class of a name; InputError for another one."""
        if not isinstance(name, str) or name not in self._classes:
            raise InputError(f"{self.what}: no {self.what} {name!r}; choose one of {', '.join(self)}")
        return self._classes[name]

    def make(self, given: str | Mapping[str, Any]) -> T:
        """An object from a name or a configuration, {"name": ..., option: value}.

        Raises:
            InputError: an unknown name or option, or an option that is missing.
        """
        config = {self.key: given} if isinstance(given, str) else given
        options: dict[str, Any] = {new_word(self.what, self.what, option): value for option, value in config.items()}
        name = options.pop(self.key, None)
        known = options_of(self.find(name))
        if unknown := sorted(options.keys() - known.keys()):
            takes = ", ".join(known) or "none"
            raise InputError(f"{self.what}: {name} has no option {unknown[0]!r}; it takes {takes}")
        if missing := [option for option in needed(self.find(name)) if option not in options]:
            raise InputError(f"{self.what}: {name} needs {', '.join(missing)}; give a value")
        return self.find(name)(**options)

    def takers(self, option: str) -> list[str]:
        """The names of the classes that have an option."""
        return [name for name, cls in self.items() if option in options_of(cls)]


def options_of(cls: type[Any]) -> "dict[str, Field[Any]]":
    """The options that a dataclass takes."""
    return {one.name: one for one in fields(cls) if one.init}


def needed(cls: type[Any]) -> list[str]:
    """The options of a dataclass without a default."""
    known = options_of(cls).values()
    return [one.name for one in known if one.default is MISSING and one.default_factory is MISSING]
