"""Objects by name or configuration: losses, optimizers."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .errors import InputError


def configured(given: str | dict[str, Any], kinds: Mapping[str, type[Any]], what: str) -> Any:
    """The object of a name among `kinds`, dataclasses, or of {"name": ..., option: value}.

    InputError for another name or option; it begins with `what` kind of object was asked for.
    """
    options: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    if name not in kinds:
        raise InputError(f"{what}: no {what} {name!r}; choose one of {', '.join(kinds)}")
    known = [field.name for field in fields(kinds[name])]
    if unknown := sorted(options.keys() - set(known)):
        raise InputError(f"{what}: {name} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
    return kinds[name](**options)
