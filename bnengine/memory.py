"""Where the outputs of ops live, and which version of an op runs there."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._typing import Array, DType
from .namespaces import namespace
from .ops._op import Into, Mode, Op, current_mode


class Choice(NamedTuple):
    """Which version of an op runs for one library and dtype, and why not a fused one."""

    op: str
    library: str
    dtype: str
    version: str
    why: str


class Fresh:
    """New arrays for every output: what a user's own calls get."""

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode: Mode = mode or current_mode()
        self._launchers: dict[tuple[str, type, Any], Callable[..., Any] | None] = {}
        self._choices: list[Choice] = []

    def launcher(self, op: Op[Any], args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """The fused version of `op` for arrays like the first argument, None for the reference: settled at first
        sight.
        """
        x = args[0]
        key = op.name, type(x), getattr(x, "dtype", None)
        if key not in self._launchers:
            launcher, why = op.resolve(self.mode, x)
            version = "reference" if launcher is None else f"{launcher.__module__}.{launcher.__qualname__}"
            self._launchers[key] = launcher
            self._choices.append(Choice(op.name, type(x).__module__.split(".")[0], str(key[2]), version, why))
        return self._launchers[key]

    def explain(self) -> list[Choice]:
        """Each (op, library, dtype) met so far, the version that runs, and the condition that a fused one failed."""
        return list(self._choices)

    def outputs(self, into: Mapping[str, Into]) -> "Outputs":
        """What a launcher asks for its outputs."""
        return Outputs(self, into)

    def empty(self, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """An uninitialised array of the library and device of `like`."""
        return namespace(like).empty(shape, dtype=dtype)


class Outputs:
    """What a launcher sees: it asks for outputs by name; where they live is not its business."""

    def __init__(self, memory: Fresh, into: Mapping[str, Into]) -> None:
        self._memory, self._into = memory, into

    def array(self, field: str, shape: tuple[int, ...], dtype: DType, like: Array) -> Array:
        """The array that output `field` is written to."""
        return self._into[field].array if field in self._into else self._memory.empty(shape, dtype, like)

    def adds(self, field: str) -> bool:
        """Whether output `field` is combined with what its array holds."""
        return field in self._into and self._into[field].adds
