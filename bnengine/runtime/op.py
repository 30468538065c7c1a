"""An op: its reference, its outputs, the names of its fused versions, and the one dispatch."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from .._typing import Array
from ..errors import InputError
from .memory import Fresh
from .modes import Into, Mode

R = TypeVar("R")
REGISTRY: dict[str, "Op[Any]"] = {}
FOLDERS = ("bnengine.fused.cuda", "bnengine.fused.cpu")


class Example(NamedTuple):
    """Inputs of an op for its tests: what is special about them, the arguments and the options."""

    label: str
    args: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 -- a default of a tuple's field, never written to


@dataclass(frozen=True)
class Contract:
    """What every version of an op is held to, and what a user's call must fulfill.

    `examples(rng, dtype)` makes inputs, ordinary and adversarial. `bound(u, *args, **options)` is the allowed error of
    each output, computed from the inputs, u the unit of rounding; an op with `between` also takes the unit that its
    intermediate results are rounded to, `between=`. `check(*args, **options)` refuses a user's bad arguments.
    """

    examples: Callable[[Any, str], Iterator[Example]]
    bound: Callable[..., Any]
    check: Callable[..., None] | None = None


class Op(Generic[R]):
    """A named computation with a reference in pure array API and, perhaps, fused versions that must agree with it.

    `reference(*args, **options)` is the readable truth; `op(*args, memory=, into=, **options)` takes the fused version
    where library and dtype allow it. `into` sends single outputs to given arrays: `{"dW": Into(array, adds=True)}`.
    """

    def __init__(
        self,
        reference: Callable[..., R],
        fused: tuple[str, ...],
        accumulates: Mapping[str, Callable[[Array, Array], Array]],
        between: bool = False,
        contract: Contract | None = None,
    ) -> None:
        self.reference, self.fused_names, self.between = reference, fused, between
        self.accumulates, self._contract = dict(accumulates), contract
        self.name, self.__doc__ = reference.__name__, reference.__doc__
        self.fields: tuple[str, ...] = getattr(reference.__annotations__.get("return"), "_fields", ("out",))

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def contract(self) -> Contract:
        """Examples, bound and check: set once, by `op(contract=)` or, for the engine's own ops, by `contracts`."""
        if self._contract is None:
            raise InputError(f"{self.name}: the op has no contract. Register it with op(contract=Contract(...))")
        return self._contract

    @contract.setter
    def contract(self, contract: Contract) -> None:
        if self._contract is not None:
            raise InputError(f"{self.name}: the op has a contract already. Remove one of the two")
        self._contract = contract

    def resolve(self, mode: Mode, x: Array) -> tuple[Callable[..., R] | None, str]:
        """(launcher of the fused version, "") for arrays like x, or (None, why the reference runs)."""
        if mode == "reference":
            return None, "reference mode requested"
        reasons = list[tuple[str, str]]()
        for name in self.fused_names:
            module, function = name.split(":")
            library = sys.modules.get(module) or importlib.import_module(module)
            reason = library.unsupported(x)
            if reason is None:
                return getattr(library, function), ""
            reasons.append((module, reason))
        # Versions for the arrays of other libraries have nothing to tell where there is one for these.
        own = [found for found in reasons if not found[1].startswith("not a ")] or reasons
        why = "; ".join(f"{module}: {reason}" for module, reason in own) or "no fused version exists"
        if mode == "fused":
            raise InputError(f"{self.name}: kernels are to be 'fused', but {why}. Take 'auto' to allow the reference.")
        return None, why

    def __call__(
        self, *args: Any, memory: Fresh | None = None, into: Mapping[str, Into] | None = None, **options: Any
    ) -> R:
        if memory is None:
            memory = Fresh()
            if self._contract is not None and self._contract.check is not None:
                self._contract.check(*args, **options)
        into = into or {}
        for field, destination in into.items():
            if field not in self.fields:
                raise InputError(f"{self.name}: no output {field!r}; it has {', '.join(self.fields)}")
            if destination.adds and field not in self.accumulates:
                can = ", ".join(self.accumulates) or "none"
                raise InputError(f"{self.name}: {field!r} cannot be added into a destination; of its outputs {can} can")
        launcher = memory.launcher(self, args)
        if launcher is not None:
            result: R = launcher(memory.outputs(into), *args, **options)
            return result
        return self._store(self.reference(*args, **options), into)

    def _store(self, result: R, into: Mapping[str, Into]) -> R:
        """References are pure; where their results go is settled here."""
        if not into:
            return result
        single = len(self.fields) == 1 and not hasattr(result, "_asdict")
        values: dict[str, Any] = {"out": result} if single else result._asdict()  # type: ignore[attr-defined]
        for field, (array, adds) in into.items():
            new = values[field]
            if new is None:
                raise InputError(f"{self.name}: this call has no output {field!r} that could go into a destination")
            if array.shape != new.shape:
                shapes = f"{tuple(array.shape)}, the output is {tuple(new.shape)}"
                raise InputError(f"{self.name}: the destination of {field!r} is {shapes}; they must be alike")
            array[...] = self.accumulates[field](array, new) if adds else new
            values[field] = array
        stored: R = values["out"] if single else type(result)(**values)
        return stored


def op(
    *fused: str,
    family: str | None = None,
    accumulates: Mapping[str, Callable[[Array, Array], Array]] | None = None,
    between: bool = False,
    contract: Contract | None = None,
) -> Callable[[Callable[..., R]], Op[R]]:
    """Register a reference as an op.

    Args:
        fused: "module:launcher" of each fused version, tried in this order.
        family: For the engine's own ops, the module in each folder of `fused` with a launcher of the op's name.
        accumulates: {output: rule} for the outputs that may be combined with what a destination holds.
        between: Whether a fused version stores something between its launches, which in 16 bits rounds it.
        contract: Examples, bound and check of an op defined outside the engine; its own are in `bnengine.contracts`.

    Raises:
        InputError: An op of this name is registered.
    """

    def register(reference: Callable[..., R]) -> Op[R]:
        if reference.__name__ in REGISTRY:
            raise InputError(f"op: {reference.__name__!r} is registered already; give the new op another name")
        own = () if family is None else tuple(f"{folder}.{family}:{reference.__name__}" for folder in FOLDERS)
        made = Op(reference, (*own, *fused), accumulates or {}, between, contract)
        REGISTRY[made.name] = made
        return made

    return register
