"""Declares the arguments of kernels: launches pass them by name, and C++ and CUDA read headers written from here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """An argument of a kernel, or a list of them: `members` are the names in the list, None for a single argument.

    `type`: of an array's elements, in C++; "" is the kernel's own type T.
    """

    name: str
    type: str = ""
    members: tuple[str, ...] | None = None

    @classmethod
    def of(cls, word: str) -> "Argument":
        """Read `name`, `name:type` or `name=member+member`."""
        word, is_list, members = word.partition("=")
        name, _, type_ = word.partition(":")
        return cls(name, type_, tuple(filter(None, members.split("+"))) if is_list else None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its members, or its own."""
        return (self.name,) if self.members is None else self.members


@dataclass(frozen=True)
class Declaration:
    """A kernel and its arguments by section, each a text of words: `name`, `name:type` or `name=member+member`.

    A launch gives each name a value: None for an absent array, a sequence for a list, and for scratch a shape and a
    dtype.

    Attributes:
        whole: Arrays that every block reads in full.
        channels: Arrays of one number per channel: a block of columns reads its columns, a block of rows all of them.
        constants: Arrays that belong to the plan and that no launch writes.
        reads: Input arrays, cut as the launch is.
        writes: Output arrays, cut as the launch is.
        scratch: Working memory of the launch.
        counters: Counters of blocks, zero between launches.
        ranges: Sorted pairs [begin, end).
    """

    name: str
    whole: str = ""
    channels: str = ""
    constants: str = ""
    reads: str = ""
    writes: str = ""
    scratch: str = ""
    counters: str = ""
    integers: str = ""
    reals: str = ""
    flags: str = ""
    ranges: str = ""

    @cached_property
    def arguments(self) -> dict[str, tuple[Argument, ...]]:
        """The arguments of each section."""
        return {section: tuple(map(Argument.of, getattr(self, section).split())) for section in SECTIONS}

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that a launch gives values to."""
        return frozenset(a.name for section in SECTIONS for a in self.arguments[section] if section != "counters")

    @cached_property
    def typed(self) -> bool:
        """Whether the kernel is a template over the element type T."""
        return any(not a.type for section in ARRAYS for a in self.arguments[section])

    @cached_property
    def _passed(self) -> tuple[tuple[str, Callable[[Any], Sequence[Any]]], ...]:
        """The sections of which a launch passes something, each with what reads its values."""
        sections = (section for section in SECTIONS if section != "counters" and self.arguments[section])
        return tuple((section, _reader(self.arguments[section])) for section in sections)

    def sorted(self, given: Mapping[str, Any], call: object = None) -> dict[str, Sequence[Any]]:
        """The values of a launch by section, lists expanded; those that are not given are attributes of the call."""
        values = {**vars(call), **given} if call is not None else given
        try:
            if given.keys() <= self.names:
                return _NOTHING | {section: read(values) for section, read in self._passed}
        except KeyError:
            pass
        raise TypeError(f"{self.name}: a launch passes {sorted(self.names)}, got {sorted(given)}")


def _reader(arguments: Sequence[Argument]) -> Callable[[Any], Sequence[Any]]:
    """What reads the values of these arguments by name, as one sequence."""
    names = [argument.name for argument in arguments]
    if any(argument.members is not None for argument in arguments):
        lists = [(argument.name, argument.members is not None) for argument in arguments]
        return lambda values: [v for name, is_list in lists for v in (values[name] if is_list else (values[name],))]
    return itemgetter(*names) if len(names) > 1 else (lambda values: (values[names[0]],))


SECTIONS = tuple(field.name for field in fields(Declaration))[1:]
_NOTHING: dict[str, Sequence[Any]] = dict.fromkeys(SECTIONS, ())
ARRAYS = ("whole", "channels", "constants", "reads", "writes", "scratch")
