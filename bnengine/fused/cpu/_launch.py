"""Launches of native kernels: how they are cut into blocks, names of kernels, how kernels take NumPy arrays."""

import functools
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..._typing import Array, DType
from ...runtime.memory import Outputs
from ...runtime.plan import COLUMNS, ROWS
from ...runtime.reasons import Kind, Reason
from .._arguments import Call, Device, copied
from .._declaration import Declaration
from . import _load
from .native import NativeKernel

TYPES = {"float32": "float", "float64": "double"}  # C++'s names
_CPP = {np.dtype(name).char: word for name, word in TYPES.items()}  # for each launch: a dtype's name is slow to make
LINE = 64  # bytes, a line of the cache
FEW_ROWS = 1024  # at most, for a block of columns to stay in a core's cache, also with strides of a power of two
BLOCK_BYTES = 16 << 10  # at least, of a block: less is not worth being handed out
BLOCK_COLUMNS = 128  # of a block, where columns are many: products are quicker on wide ones
MANY_BLOCKS = 16  # of columns, from which on they are no wider
MOST_BLOCKS = 512  # of a launch
GATHER_COST = 4  # of a gathered byte, relative to a contiguous one

_COPIED = {"f4 f4", "f4 f8", "f8 f4", "f8 f8", "i8 i8", "i4 i8", "u1 i8", "b1 b1"}
_AXES = 4  # of the arrays that the copying kernel takes


# -- how a launch is cut


class Cut(NamedTuple):
    """How a launch is cut: along what, how many columns or rows, in multiples of what, into how many blocks at most."""

    split: int | None
    width: int = 1
    unit: int = 1
    blocks: int = 1

    @property
    def by_columns(self) -> bool:
        """Whether a block has all rows of some columns."""
        return self.split == COLUMNS


WHOLE = Cut(None)


def evenly(blocks: int) -> int:
    """The largest power of two up to `blocks`, at least 1: as threads mostly are, so that none waits for another."""
    return 1 << max(0, blocks.bit_length() - 1)


def blocks_of_columns(columns: int, unit: int, least: int = 2) -> int:
    """The number of blocks, of at least `least` units each."""
    return evenly(min(-(-columns // unit) // least, max(MANY_BLOCKS, columns // BLOCK_COLUMNS)))


def cut_columns(rows: int, columns: int, itemsize: int) -> Cut:
    """Blocks of all rows of some columns, those of a product of this result."""
    unit = LINE // itemsize
    blocks = min(blocks_of_columns(columns, unit), evenly(rows * columns * itemsize // BLOCK_BYTES))
    return Cut(COLUMNS, columns, unit, blocks)


def cut_rows(rows: int, columns: int, itemsize: int, unit: int = 1) -> Cut:
    """Blocks of rows, in multiples of `unit`."""
    blocks = min(rows * columns * itemsize // BLOCK_BYTES, -(-rows // unit), MOST_BLOCKS)
    return Cut(ROWS, rows, unit, evenly(blocks))


def cut_flat(size: int, itemsize: int) -> Cut:
    """Blocks of a flat array."""
    return Cut(COLUMNS, size, LINE // itemsize, evenly(min(size * itemsize // (2 * BLOCK_BYTES), MOST_BLOCKS // 2)))


def cut(shape: tuple[int, int], itemsize: int) -> Cut:
    """By columns, so that a product and all that follows it meet in the cache; by rows where there are many of them.

    Then columns would not stay in it, and may be too few for the threads.
    """
    few = shape[0] <= FEW_ROWS
    return cut_columns(*shape, itemsize) if few else cut_rows(*shape, itemsize)


def over(x: Array, columns: str = "columns") -> dict[str, Any]:
    """How a launch over the rows and columns of x is cut, as kernels take it that call its columns so."""
    along = cut(x.shape, x.itemsize)
    return {"along": along, "rows": x.shape[0], columns: x.shape[1], "by_columns": along.by_columns}


# -- kernels


@functools.lru_cache(4096)  # op by op, the same launches come again and again
def kernel(name: str, *parameters: str, cut: Cut = WHOLE, scratch: int = 0) -> NativeKernel:
    """The instance name<parameters>."""
    full = f"{name}<{', '.join(parameters)}>" if parameters else name
    return NativeKernel(full, cut.width, cut.unit, cut.blocks, scratch)


class Kernel(Declaration):
    """A kernel of kernels/cpu. `layout.h` gives C++ the arguments by name.

    After a change run `python -m tests.layouts` and increment `INTERFACE`.
    """

    def __call__(
        self, to: Outputs, of: Call | Array, *parameters: str, along: Cut = WHOLE, scratch: int = 0, **given: Any
    ) -> None:
        """Launch the instance for the dtype of `of` and these parameters; what is not given is an attribute of `of`."""
        call = of if isinstance(of, Call) else None
        values = self.sorted(given, call)
        if self.typed and self is not REARRANGED:
            parameters = (_CPP[(of if call is None else call.lead).dtype.char], *parameters)
        to.launch(
            kernel(self.name, *parameters, cut=along, scratch=scratch),
            whole=values["whole"] if along.by_columns else (*values["whole"], *values["channels"]),
            reads=(*values["channels"], *values["reads"]) if along.by_columns else values["reads"],
            writes=values["writes"],
            scalars=(
                *map(int, values["integers"]), *map(bool, values["flags"]), *_listed(values["ranges"]),
                *map(float, values["reals"]),
            ),
            split=along.split,
        )  # fmt: skip


def _listed(lists: Iterable[Iterable[tuple[int, int]]]) -> list[int]:
    """Each list of ranges [begin, end): their number, then their ends."""
    return [n for ranges in lists for n in (len(list(ranges)), *(int(end) for pair in ranges for end in pair))]


REARRANGED = Kernel(
    "rearranged", reads="x:char", writes="out",
    integers="size_i size_j size_k size_l stride_i stride_j stride_k stride_l",
)  # fmt: skip
FILL = Kernel("fill", writes="out", reals="value")
COPY = Kernel("copy", reads="x", writes="out")


# -- arrays


class _Cpu(Device):
    """Native kernels on NumPy arrays."""

    library: ClassVar[str] = "numpy"
    writes_to: ClassVar[str] = "native kernels write to contiguous, aligned, writeable"

    def refusal(self, x: Any, *more: str) -> Reason | None:
        if type(x) not in (np.ndarray, np.memmap):
            return Reason(Kind.ARRAY, f"{type(x).__name__} is not a plain NumPy array")
        if x.dtype.name not in (*TYPES, *more) or not x.dtype.isnative:
            return Reason(Kind.ARRAY, f"{x.dtype} is not one of {', '.join((*TYPES, *more))}")
        missing = _load.available()
        return None if missing is None else Reason(Kind.MISSING, missing)

    def aligned(self, x: Array, *, written: bool = False) -> bool:
        return bool(x.flags.aligned and (x.flags.writeable or not written))

    def wide(self, x: Array) -> DType:
        return x.dtype

    def copy(self, to: Outputs, x: Array, out: Array) -> None:
        types = x.dtype.str[1:], out.dtype.str[1:]
        if " ".join(types) not in _COPIED or not x.dtype.isnative or x.ndim > _AXES:
            to.launch(copied, reads=(x,), writes=(out,))
            return
        ones, zeros = ((fill,) * (_AXES - x.ndim) for fill in (1, 0))
        shape, strides = (*x.shape[:1], *ones, *x.shape[1:]), (*x.strides[:1], *zeros, *x.strides[1:])
        along = cut_rows(x.shape[0], x.size // max(1, x.shape[0]), out.itemsize) if x.ndim else WHOLE
        names = (argument.name for argument in REARRANGED.arguments["integers"])
        REARRANGED(to, x, *types, along=along, x=x, out=out, **dict(zip(names, (*shape, *strides), strict=True)))

    def fill(self, to: Outputs, out: Array, value: float) -> None:
        FILL(to, out, out=out, value=value)

    def in_rows(self, x: Array) -> bool:
        size, strides = x.itemsize, x.strides
        for n, stride in zip(reversed(x.shape[1:]), reversed(strides[1:]), strict=True):
            if n > 1 and stride != size:
                return False
            size *= n
        return bool(x.flags.aligned and strides[0] >= size)


DEVICE = _Cpu()
ready, version, launches = DEVICE.ready, DEVICE.version, DEVICE.launches
