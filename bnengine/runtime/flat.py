"""One buffer for all parameters, gradients, a moment or all statistics, with a named view per handle."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

from .._typing import Array, DType
from ..arrays.namespaces import namespace
from ..arrays.random import Stream
from ..errors import BackendError, InputError
from ..validation import flag, number
from .modes import Out

Initializer = Callable[[Stream, tuple[int, ...]], Any]
ALIGNMENT = 64  # bytes, a cache line: a view per handle starts on one


class Changes:
    """Counts writes to attributes of a network's layers; a changed count invalidates recorded steps."""

    count = 0
    freezes: tuple[tuple[bool, bool], ...] | None = None  # what is frozen, None after a change

    def conflict(self) -> str:
        """Return what the layers no longer agree with after a write; "" for nothing."""
        return ""


class _Handle:
    """Base class of handles: a write to an attribute takes effect at the next step, or raises."""

    changes: "WeakSet[Changes] | None" = None  # those of its network
    fixed = frozenset({"shape", "decays", "value", "operand"})
    flags = frozenset({"decays", "frozen", "unbiased", "use_running"})

    def __setattr__(self, name: str, value: Any) -> None:
        owner = type(self).__name__
        if self.changes and name in self.fixed:
            cure = f"Write into {name}[...]" if name in ("value", "operand") else "Set it before the network is built"
            raise InputError(f"{owner}: {name} is fixed in a network, got {value!r}. {cure}.")
        if name == "decay":
            value = checked_decay(owner, value)
        elif name in self.flags:
            value = flag(owner, name, value)
        super().__setattr__(name, value)
        for changes in self.changes or ():
            if name in ("frozen", "use_running"):
                changes.freezes = None
            else:
                changes.count += 1

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "changes"}  # a copy is in no network


class Parameter(_Handle):
    """A handle to one trained array; a network's buffer holds the values.

    Args:
        shape: of the array.
        initializer: how it is drawn; None for zeros.
        decays: whether weight decay applies to it.
    """

    leading: tuple[int, ...] = ()

    def __init__(self, shape: tuple[int, ...], initializer: Initializer | None = None, *, decays: bool = True) -> None:
        self.shape, self.initializer, self.decays = shape, initializer, decays
        self.frozen = False
        self.value: Array = None
        self.operand: Array = None  # what products take: the value, or its 16-bit copy where activations have 16 bits


class Statistics(_Handle):
    """A handle to running statistics (count, mean, var), float64; a network's buffer holds them.

    Args:
        channels: the number of columns.
        decay: the share of the old value that a commit keeps; None merges exactly.
        unbiased: whether the running variance takes the unbiased one of a batch.
    """

    leading: tuple[int, ...] = (3,)

    def __init__(self, channels: int, *, decay: float | None, unbiased: bool) -> None:
        self.shape, self.decay, self.unbiased = (channels,), decay, unbiased
        self.frozen = False  # whether pending statistics stay empty
        self.use_running = False  # whether training normalizes by the running statistics too
        self.value: Array = None


Handle = Parameter | Statistics


def checked_decay(owner: str, decay: float | None) -> float | None:
    """Return the decay as a float in [0, 1), None for an exact merge; InputError for another value."""
    cure = "It is the share of the old value kept; 0.9 is usual."
    return None if decay is None else number(owner, "decay", decay, least=0, below=1, cure=cure)


def size(handle: Handle) -> int:
    """Return the number of elements of a handle in one row of its buffer."""
    product = 1
    for n in handle.shape:
        product *= n
    return product


class Flat:
    """A buffer, the views of its handles, and which of them have been written since `start`."""

    def __init__(self, array: Array, offsets: dict[Handle, int]) -> None:
        self.array, self.offsets = array, offsets
        self._views = {h: self._view(h) for h in offsets}
        self._written: set[Handle] = set()
        self.put_by_hand = False  # whether a gradient was `put` since `start`

    def _view(self, handle: Handle) -> Array:
        start = self.offsets[handle]
        view = self.array[..., start : start + size(handle)]
        return namespace(view).reshape(view, (*handle.leading, *handle.shape))

    @classmethod
    def zeros(cls, xp: Any, handles: Iterable[Handle], dtype: DType, *, itemsize: int, device: Any = None) -> "Flat":
        """Return a zeroed buffer for `handles` in their order, each at an offset of whole cache lines."""
        step, total = ALIGNMENT // itemsize, 0
        offsets: dict[Handle, int] = {}
        leading: tuple[int, ...] = ()
        for handle in handles:
            offsets[handle], total, leading = total, total + -(-size(handle) // step) * step, handle.leading
        flat = cls(xp.zeros((*leading, total), dtype=dtype, device=device), offsets)
        flat._probe()
        return flat

    def _probe(self) -> None:
        """Raise BackendError if a slice is no view, which the array API does not promise and everything here needs."""
        for view in self._views.values():
            view[...] = 1
        xp = namespace(self.array)
        expected = sum(size(h) * (h.leading[0] if h.leading else 1) for h in self.offsets)
        if int(xp.sum(xp.astype(self.array, xp.float64))) != expected:
            raise BackendError(
                f"Flat: in {xp.__name__} a write through a slice does not show in its array, so parameters cannot "
                "share one buffer. Use NumPy, CuPy or PyTorch."
            )
        self.array[...] = 0

    def like(self) -> "Flat":
        """Return zeros of the same layout."""
        return Flat(namespace(self.array).zeros_like(self.array), self.offsets)

    def over(self, array: Array) -> "Flat":
        """Return the same layout over another buffer of this shape."""
        return Flat(array, self.offsets)

    def __getitem__(self, handle: Handle) -> Array:
        return self._views[handle]

    def __iter__(self) -> Iterator[Handle]:
        return iter(self.offsets)

    def start(self) -> None:
        """Make the next write to each handle overwrite it; later writes accumulate."""
        self._written.clear()
        self.put_by_hand = False

    def into(self, **handles: Handle | None) -> dict[str, Out]:
        """Return where results of an op go, `into(dW=self.W, db=self.b)`: first write, then accumulate."""
        written = {field: h for field, h in handles.items() if h is not None and not h.frozen}
        destinations = {field: Out(self._views[h], h in self._written) for field, h in written.items()}
        self._written.update(written.values())
        return destinations

    def put(self, handle: Handle, value: Array) -> None:
        """Store a gradient that a layer computed without an op: first write, then accumulate."""
        self.put_by_hand = True
        for array, adds in self.into(value=handle).values():
            array[...] = array + value if adds else value

    def finish(self) -> bool:
        """Zero what was not written since `start`, because it is frozen or unused; return whether there was any."""
        unwritten = [view for handle, view in self._views.items() if handle not in self._written]
        for view in unwritten:
            view[...] = 0
        return bool(unwritten)

    def ranges(self, handles: Iterable[Handle]) -> tuple[tuple[int, int], ...]:
        """Return the places of `handles` as ranges [a, b) of the buffer, in order."""
        return tuple(sorted((self.offsets[h], self.offsets[h] + size(h)) for h in handles))
