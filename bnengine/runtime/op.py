"""An op: its reference, its outputs, the fused versions that registered with it, and dispatch."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from .._typing import Array
from ..errors import InputError
from .memory import Memory, Outputs
from .modes import Mode, Out
from .reasons import Kind, Reason

R = TypeVar("R")
Launcher = Callable[..., Any]
REGISTRY: dict[str, "Op[Any]"] = {}
_libraries: dict[str, Callable[[], object]] = {}


class Example(NamedTuple):
    """Inputs of an op for its tests: what is special about them, the arguments and the options."""

    label: str
    args: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 -- a default of a tuple's field, never written to


@dataclass(frozen=True)
class Contract:
    """Examples and bounds for every version of an op, and a check of a user's arguments.

    Attributes:
        examples: from (rng, dtype) to inputs, ordinary and adversarial.
        bound: from (u, *args, **options) to the allowed error of each output, u the unit of rounding. An op with
            `between` also takes `between=`, the unit that its intermediate results are rounded to.
        check: takes (*args, **options) and raises InputError for bad arguments.
    """

    examples: Callable[[Any, str], Iterator[Example]]
    bound: Callable[..., Any]
    check: Callable[..., None] | None = None


def library_of(x: Any) -> str:
    """Return the name of the array library of x: "numpy", "cupy"."""
    return type(x).__module__.partition(".")[0]


def versions_come_from(library: str, load: Callable[[], object]) -> None:
    """Call `load` once, before the first array of a library meets an op: it imports what registers fused versions."""
    _libraries[library] = load


class Version(NamedTuple):
    """A fused version of an op: its launcher, and why it cannot take arrays like x, None if it can."""

    launcher: Launcher
    refuses: Callable[[Any], Reason | None]


class Op(Generic[R]):
    """A named computation: a reference in pure array API, and fused versions that must agree with it.

    `reference(*args, **options)` is the reference implementation. `op(*args, memory=, into=, **options)` takes a fused
    version if there is one for the library and dtype. `into` sends single outputs to given arrays:
    `{"dW": Out(array, adds=True)}`.
    """

    def __init__(
        self,
        reference: Callable[..., R],
        family: str | None,
        accumulates: Mapping[str, Callable[[Array, Array], Array]],
        between: bool = False,
        contract: Contract | None = None,
    ) -> None:
        self.reference, self.family, self.between = reference, family, between
        self._versions: dict[str, list[Version]] = {}
        self.accumulates, self._contract = dict(accumulates), contract
        self.name, self.__doc__ = reference.__name__, reference.__doc__
        self.fields: tuple[str, ...] = getattr(reference.__annotations__.get("return"), "_fields", ("out",))

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def contract(self) -> Contract:
        """Examples, bound and check: set once, by `op(contract=)` or, for the engine's ops, by `bnengine.contracts`."""
        if self._contract is None:
            raise InputError(f"{self.name}: the op has no contract. Register it with op(contract=Contract(...)).")
        return self._contract

    @contract.setter
    def contract(self, contract: Contract) -> None:
        if self._contract is not None:
            raise InputError(f"{self.name}: the op has a contract already. Remove one of the two.")
        self._contract = contract

    def versions(self, library: str) -> list[Version]:
        """Return the fused versions for arrays of a library, in the order in which they are tried."""
        if load := _libraries.pop(library, None):
            load()
        return self._versions.get(library, [])

    def version(
        self, library: str, refuses: Callable[[Any], Reason | None] = lambda _x: None
    ) -> Callable[[Launcher], Launcher]:
        """Register a launcher as a fused version for arrays of a library.

        The launcher takes `to`, which gives it its outputs, and any of the reference's parameters by name. Arguments
        that a call leaves out have the reference's defaults.

        Args:
            library: the top-level module of the arrays: "numpy", "cupy".
            refuses: why the version cannot take arrays like x; None if it can.

        Raises:
            InputError: the launcher names a parameter that the reference does not have.
        """

        def register(launcher: Launcher) -> Launcher:
            called = _called_as(self.reference, launcher)
            self._versions.setdefault(library, []).append(Version(called, refuses))
            return called

        return register

    def resolve(self, mode: Mode, x: Array) -> tuple[Callable[..., R] | None, Reason | None]:
        """Return (launcher of the fused version, None) for arrays like x, or (None, why the reference runs)."""
        if mode == "reference":
            return None, Reason(Kind.MODE, "reference mode requested")
        reasons = list[Reason]()
        for launcher, refuses in self.versions(library_of(x)):
            reason = refuses(x)
            if reason is None:
                return launcher, None
            reasons.append(reason)
        why = _together(reasons) if reasons else Reason(Kind.NONE, f"no fused version exists for {library_of(x)}")
        if mode == "fused":
            raise InputError(
                f"{self.name}: kernels are to be 'fused', but {why.text}. Take 'auto' to allow the reference."
            )
        return None, why

    def __call__(
        self, *args: Any, memory: Memory | None = None, into: Mapping[str, Out] | None = None, **options: Any
    ) -> R:
        if memory is None:
            memory = Memory()
            if self._contract is not None and self._contract.check is not None:
                self._contract.check(*args, **options)
        into = into or {}
        for field, destination in into.items():
            if field not in self.fields:
                raise InputError(f"{self.name}: no output {field!r}. It has {', '.join(self.fields)}.")
            if destination.adds and field not in self.accumulates:
                can = ", ".join(self.accumulates) or "none"
                raise InputError(
                    f"{self.name}: {field!r} cannot be added into a destination. Of its outputs {can} can."
                )
        launcher = memory.launcher(self, args)
        if launcher is not None:
            result: R = launcher(memory.outputs(into), *args, **options)
            return result
        return self._store(self.reference(*args, **options), into)

    def _store(self, result: R, into: Mapping[str, Out]) -> R:
        """Store results of the reference, which is pure, in their destinations."""
        if not into:
            return result
        single = len(self.fields) == 1 and not hasattr(result, "_asdict")
        values: dict[str, Any] = {"out": result} if single else result._asdict()  # type: ignore[attr-defined]
        for field, (array, adds) in into.items():
            new = values[field]
            if new is None:
                raise InputError(
                    f"{self.name}: this call has no output {field!r} that could go into a destination. Leave it out of "
                    "`into`."
                )
            if array.shape != new.shape:
                shapes = f"{tuple(array.shape)}, the output is {tuple(new.shape)}"
                raise InputError(f"{self.name}: the destination of {field!r} is {shapes}. They must be alike.")
            array[...] = self.accumulates[field](array, new) if adds else new
            values[field] = array
        stored: R = values["out"] if single else type(result)(**values)
        return stored


def _together(reasons: list[Reason]) -> Reason:
    """Join the reasons of several versions; the last one gives the kind."""
    return Reason(reasons[-1].kind, "; ".join(dict.fromkeys(reason.text for reason in reasons)))


def _called_as(reference: Callable[..., Any], launcher: Launcher) -> Launcher:
    """Return the launcher with the signature of the reference, after `to`; one that takes any arguments unchanged."""
    signature, accepted = inspect.signature(reference), list(inspect.signature(launcher).parameters.values())[1:]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in accepted):
        return launcher
    names, taken = tuple(signature.parameters), tuple(p.name for p in accepted)
    if unknown := [name for name in taken if name not in names]:
        raise InputError(
            f"{reference.__name__}: a fused version takes {unknown}, the op has {', '.join(names)}. Rename its "
            "arguments."
        )
    takes_all = set(taken) == set(names)
    positional = sum(p.kind is not p.KEYWORD_ONLY for p in signature.parameters.values())
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}

    @functools.wraps(launcher)
    def called(to: Outputs, *args: Any, **options: Any) -> Any:
        values = {**defaults, **dict(zip(names, args, strict=False)), **options}
        if len(args) > positional or len(values) != len(names) or not options.keys().isdisjoint(names[: len(args)]):
            signature.bind(*args, **options)  # raises what is wrong
        return launcher(to, **(values if takes_all else {name: values[name] for name in taken}))

    return called


def op(
    *,
    family: str | None = None,
    accumulates: Mapping[str, Callable[[Array, Array], Array]] | None = None,
    between: bool = False,
    contract: Contract | None = None,
) -> Callable[[Callable[..., R]], Op[R]]:
    """Register a reference as an op.

    Args:
        family: for the engine's ops, the module in each folder of `fused` with a launcher of the op.
        accumulates: {output: rule} for the outputs that may be combined with the values of a destination.
        between: whether a fused version stores something between its launches, which in 16 bits rounds it.
        contract: examples, bound and check of an op defined outside the engine; for its own see `bnengine.contracts`.

    Raises:
        InputError: an op of this name is registered.
    """

    def register(reference: Callable[..., R]) -> Op[R]:
        if reference.__name__ in REGISTRY:
            raise InputError(f"op: {reference.__name__!r} is registered already. Give the new op another name.")
        made = Op(reference, family, accumulates or {}, between, contract)
        REGISTRY[made.name] = made
        return made

    return register
