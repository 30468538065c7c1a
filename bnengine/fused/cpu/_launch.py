"""What all launchers share: arrays in a kernel's layout, how a launch is cut into blocks, names of kernels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array, DType
from ...runtime.memory import Outputs
from ...runtime.op import Launcher, Op
from ...runtime.plan import COLUMNS, ROWS
from ...runtime.reasons import Kind, Reason
from .._declaration import Declaration
from .._launch import copied, destination, extent, has_rows, row_stride
from . import _load
from .native import NativeKernel

TYPES = {"float32": "float", "float64": "double"}  # C++'s names
LINE = 64  # bytes, a line of the cache
FEW_ROWS = 1024  # of which a block of columns stays in a core's own cache, even where rows lie a power of two apart
BLOCK_BYTES = 16 << 10  # at least, of a block: less is not worth being handed out
BLOCK_COLUMNS = 128  # of a block, where columns are many: products are quicker on wide ones
MANY_BLOCKS = 16  # of columns: so many that those are no wider
MOST_BLOCKS = 512  # of a launch
APART = 4  # a byte of rows that lie anywhere takes as long as so many

_COPIED = {
    ("f4", "f4"),
    ("f4", "f8"),
    ("f8", "f4"),
    ("f8", "f8"),
    ("i8", "i8"),
    ("i4", "i8"),
    ("u1", "i8"),
    ("b1", "b1"),
}
_AXES = 4  # of the arrays that the copying kernel takes


def refusal(x: Any, dtypes: Sequence[str] = tuple(TYPES)) -> Reason | None:
    """Why the kernels cannot take arrays like x; None if they can."""
    if type(x) not in (np.ndarray, np.memmap):
        return Reason(Kind.ARRAY, f"{type(x).__name__} is not a plain NumPy array")
    if x.dtype.name not in dtypes or not x.dtype.isnative:
        return Reason(Kind.ARRAY, f"{x.dtype} is not one of {', '.join(dtypes)}")
    missing = _load.available()
    return None if missing is None else Reason(Kind.MISSING, missing)


def version(op: Op[Any], *more: str) -> Callable[[Launcher], Launcher]:
    """Register a launcher as the op's version for NumPy arrays. `more`: dtypes that it takes beside the usual."""
    return op.version("numpy", partial(refusal, dtypes=(*TYPES, *more)))


def flat(x: Array | None) -> Array | None:
    """x as (rows, channels), the same memory: so launches of neighbours see the same view."""
    return None if x is None else x.reshape(extent(x))


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
    """So many blocks or fewer, at least one: a power of two, as threads mostly are, so that none waits for another."""
    return 1 << max(0, blocks.bit_length() - 1)


def blocks_of_columns(columns: int, unit: int, least: int = 2) -> int:
    """Blocks of at least so many units."""
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


# -- kernels


def kernel(name: str, *parameters: Any, cut: Cut = WHOLE, scratch: int = 0) -> NativeKernel:
    """The instance name<parameters>; an array among the parameters stands for C++'s name of its dtype."""
    words = [p if isinstance(p, str) else TYPES[p.dtype.name] for p in parameters]
    full = f"{name}<{', '.join(words)}>" if words else name
    return NativeKernel(full, cut.width, cut.unit, cut.blocks, scratch)


class Kernel(Declaration):
    """A kernel of kernels/cpu. `layout.h` gives C++ the arguments by name.

    After a change run `python -m tests.layouts` and increment `INTERFACE`.
    """

    def __call__(self, to: Outputs, *parameters: Any, along: Cut = WHOLE, scratch: int = 0, **given: Any) -> None:
        """Launch the instance name<parameters> on what is given; an array among the parameters stands for its type."""
        of = self.sorted(given)
        to.launch(
            kernel(self.name, *parameters, cut=along, scratch=scratch),
            whole=of["whole"] if along.by_columns else (*of["whole"], *of["channels"]),
            reads=(*of["channels"], *of["reads"]) if along.by_columns else of["reads"],
            writes=of["writes"],
            scalars=(
                *map(int, of["integers"]),
                *map(bool, of["flags"]),
                *_listed(of["ranges"]),
                *map(float, of["reals"]),
            ),
            split=along.split,
        )


def _listed(lists: tuple[Any, ...]) -> list[int]:
    """Each list of ranges [begin, end), sorted: how many there are, then their ends."""
    return [n for ranges in lists for n in (len(ranges), *(int(end) for pair in sorted(ranges) for end in pair))]


REARRANGED = Kernel(
    "rearranged", reads="x:char", writes="out",
    integers="size_i size_j size_k size_l stride_i stride_j stride_k stride_l",
)  # fmt: skip
FILL = Kernel("fill", writes="out", reals="value")
COPY = Kernel("copy", reads="x", writes="out")


# -- arrays


def ready(to: Outputs, x: Array, dtype: DType | None = None) -> Array:
    """x itself if it is contiguous, aligned and of this dtype (None: whichever it has), else a copy that is.

    The copy is a launch, so that it is made again in every replay.
    """
    if x is None:
        return None
    dtype = np.dtype(x.dtype if dtype is None else dtype)
    if x.dtype == dtype and x.flags.c_contiguous and x.flags.aligned:
        return x
    out = to.array("a contiguous copy", x.shape, dtype, x)
    types = x.dtype.str[1:], dtype.str[1:]
    if types not in _COPIED or not x.dtype.isnative or x.ndim > _AXES:
        to.launch(copied, reads=(x,), writes=(out,))
        return out
    missing = _AXES - x.ndim
    shape, strides = (*x.shape[:1], *(1,) * missing, *x.shape[1:]), (*x.strides[:1], *(0,) * missing, *x.strides[1:])
    along = cut_rows(x.shape[0], x.size // max(1, x.shape[0]), dtype.itemsize) if x.ndim else WHOLE
    names = (argument.name for argument in REARRANGED.arguments["integers"])
    REARRANGED(to, *types, along=along, x=x, out=out, **dict(zip(names, (*shape, *strides), strict=True)))
    return out


def scalar(to: Outputs, value: Any, dtype: DType, like: Array) -> Array:
    """A number as an array of shape (1,), which kernels read it from; such an array as it is."""
    if hasattr(value, "shape"):
        return ready(to, value, dtype)
    out = to.array("a number", (1,), dtype, like)
    FILL(to, out, out=out, value=value)
    return out


def statistics_of(to: Outputs, x: Array) -> tuple[Array, int]:
    """(count, mean, var) and the elements from row to row: columns of a larger buffer are read where they are."""
    x = x if x.flags.aligned and has_rows(x) else ready(to, x, np.float64)
    return x, row_stride(x)


def output(
    to: Outputs, field: str, shape: Sequence[int], dtype: DType, like: Array, *, there: bool = True,
    rows_apart: bool = False,
) -> Array:  # fmt: skip
    """The array that an output is written to, as `destination` has it.

    `rows_apart`: it may be columns of a larger buffer.
    """

    def takes(array: Array) -> bool:
        flags = array.flags
        return flags.aligned and flags.writeable and (flags.c_contiguous or (rows_apart and has_rows(array)))

    kernels = "native kernels write to contiguous, aligned, writeable"
    return destination(to, field, shape, dtype, like, takes, kernels, there=there)
