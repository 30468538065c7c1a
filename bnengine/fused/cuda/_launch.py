"""What all launchers share: arrays in a kernel's layout, vector widths, grids, arguments as they are packed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..._typing import Array, DType
from ...runtime.memory import Outputs
from ...runtime.op import Launcher, Op
from ...runtime.reasons import Kind, Reason
from .._declaration import ARRAYS, Declaration
from .._launch import copied, destination, has_rows, row_stride
from . import _load

BLOCK = (32, 8)  # kLanes and kWarps of kernels/cuda/common.cuh
LANES, WARPS, THREADS = 32, 8, 256
HELD = 8  # kHeld of kernels/cuda/slices.cuh
STORAGES = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
FULL = ("float32", "float64")  # the types that parameters and optimizers have
INDEX = "long long"
UNASKED = 32 << 10  # bytes of shared memory that a launch may have beside 16 KiB of the kernel's own, unasked


def refusal(x: Any, dtypes: Sequence[str] = tuple(STORAGES)) -> Reason | None:
    """Why the kernels cannot take arrays like x; None if they can."""
    if x.dtype.name not in dtypes:
        return Reason(Kind.ARRAY, f"{x.dtype.name} is not one of {', '.join(dtypes)}")
    older = _load.refusal()
    return None if older is None else Reason(Kind.MISSING, older)


def version(op: Op[Any], dtypes: Sequence[str] = tuple(STORAGES)) -> Callable[[Launcher], Launcher]:
    """Register a launcher as the op's version for CuPy arrays of these dtypes."""
    return op.version("cupy", partial(refusal, dtypes=dtypes))


def arithmetic(x: Array) -> DType:
    """The dtype that kernels compute in for arrays stored like x."""
    return np.float64 if x.dtype == np.float64 else np.float32


def storage(x: Array) -> str:
    """CUDA's name for the dtype of x."""
    return STORAGES[x.dtype.name]


def activation_name(kind: str) -> str:
    """The enumerator of kernels/rules.h."""
    return f"bnengine::Activation::{kind}"


# -- kernels and their arguments


def indices(*values: int) -> tuple[np.int64, ...]:
    """Scalars that the kernel takes as `index`: CuPy hands on their bytes without a look at the parameter."""
    return tuple(map(np.int64, values))


def reals(*values: float) -> tuple[np.float64, ...]:
    """Scalars that the kernel takes as `double`."""
    return tuple(map(np.float64, values))


def flags(*values: bool) -> tuple[np.bool_, ...]:
    """Scalars that the kernel takes as `bool`."""
    return tuple(map(np.bool_, values))


_NULL = np.uint64(0)  # None would be no argument at all for CuPy, and the launch would read from address 0


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a kernel with its grid: called with a launch's arrays and scalars, it packs and launches.

    `bound`: arrays that belong to the kernel and not to the launch, each with its place among the arguments: counters
    that are always zero between launches, and constants.
    """

    name: str
    function: Any
    grid: tuple[int, ...]
    shared: int = 0
    bound: tuple[tuple[int, Array], ...] = ()

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, *arguments: Any) -> None:
        packed = [_NULL if a is None else a for a in arguments]
        for place, array in self.bound:
            packed.insert(place, array)
        self.function(self.grid, BLOCK, tuple(packed), shared_mem=self.shared)


def kernel(
    like: Array,
    file: str,
    name: str,
    *parameters: Any,
    grid: tuple[int, ...] = (1,),
    shared: int = 0,
    bound: tuple[tuple[int, Array], ...] = (),
) -> Instance:
    """The instance name<parameters> of kernels/cuda/<file>, on the device of `like`; `shared`: bytes of its own."""
    given = f"<{', '.join(map(str, parameters))}>" if parameters else ""
    expression = f"bnengine::{name}{given}"
    function = _load.function(file, expression, like.device.id)
    if shared > UNASKED:
        function.max_dynamic_shared_size_bytes = max(shared, function.max_dynamic_shared_size_bytes)
    return Instance(expression, function, grid, shared, bound)


@dataclass(frozen=True)
class Kernel(Declaration):
    """A kernel of kernels/cuda/<file>. `layout.cuh` gives the source its parameters.

    Those are the sections in the order of the fields. `element`: the source's name for the kernel's own type. The type
    "wide" is the one that it computes in. After a change run `python -m tests.layouts`.
    """

    file: str = ""
    element: str = "T"

    def __call__(
        self, to: Outputs, like: Array, *parameters: Any, grid: tuple[int, ...] = (1,), shared: int = 0,
        groups: int = 1, **given: Any,
    ) -> None:  # fmt: skip
        """Launch the instance name<parameters> on the device of `like`; counters count `groups` of its blocks each."""
        of = self.sorted(given)
        bound = [(len(of["whole"]) + len(of["channels"]) + i, array) for i, array in enumerate(of["constants"])]
        if self.counters:
            bound.append((sum(len(of[section]) for section in ARRAYS), arrivals(like, groups)))
        to.launch(
            kernel(like, self.file, self.name, *parameters, grid=grid, shared=shared, bound=tuple(bound)),
            whole=(*of["whole"], *of["channels"]),
            reads=of["reads"],
            writes=of["writes"],
            scratch=of["scratch"],
            scalars=(*indices(*of["integers"]), *reals(*of["reals"]), *flags(*of["flags"])),
        )


def arrivals(like: Array, count: int = 1) -> Array:
    """Counters for `count` groups of blocks on the device of `like`."""
    return _load.arrivals(count, like.device.id)


def shared_memory(like: Array) -> int:
    """Bytes of shared memory that a block can have on the device of `like`."""
    return _load.shared_memory(like.device.id)


# -- grids


def flat_grid(like: Array, size: int, vector: int = 1, waves: int = 8) -> tuple[int]:
    """Blocks for a kernel that goes over `size` elements with strides of the grid."""
    return (max(1, min(-(-size // (vector * THREADS)), waves * _load.multiprocessors(like.device.id))),)


def slice_width(vector: int) -> int:
    """The channels of a slice."""
    return LANES if vector == 1 else 8 * vector


def sliced_grid(like: Array, rows: int, channels: int, vector: int, *, sums: bool) -> tuple[int, int]:
    """(slices of the channels, splits of the rows), as `Slice` of kernels/cuda/slices.cuh has them.

    Where the splits are summed up (`sums`), a thread is to have a block of rows of its own (kHeld), and fewer blocks
    are waited for. No more of them than run side by side: the few of a second wave would take as long as all of the
    first.
    """
    slices = -(-channels // slice_width(vector))
    rows_at_once = WARPS * (LANES * vector // slice_width(vector)) * (HELD if sums else 2)
    side_by_side = (2 if sums else 4) * _load.multiprocessors(like.device.id)
    return slices, max(1, min(side_by_side // slices, -(-rows // rows_at_once), 65535))


def vector_of(like: Array, columns: int | None, *arrays: Array | None) -> int:
    """Elements of 16 bytes, if rows of so many columns (None: flat arrays) and all arrays begin on such; else 1."""
    vector = 16 // int(like.dtype.itemsize)
    if columns is not None and columns % vector:
        return 1
    return vector if all(a is None or a.data.ptr % 16 == 0 for a in arrays) else 1


# -- arrays


def filled(out: Array, value: float) -> None:
    """A launch of CuPy's own: every element is `value`."""
    out.fill(value)


def ready(to: Outputs, x: Array, dtype: DType | None = None) -> Array:
    """x itself if it is contiguous and of this dtype (None: whichever it has), else a copy that is.

    The copy is a launch, so that it is made again in every replay.
    """
    if x is None:
        return None
    dtype = np.dtype(x.dtype if dtype is None else dtype)
    if x.dtype == dtype and x.flags.c_contiguous:
        return x
    out = to.array("a contiguous copy", x.shape, dtype, x)
    if x.flags.c_contiguous and {x.dtype.name, dtype.name} <= STORAGES.keys():
        _cast(to, x, out)
    else:
        to.launch(copied, reads=(x,), writes=(out,))
    return out


CAST = Kernel("cast", file="pointwise.cu", reads="x:S", writes="y", integers="size")


def _cast(to: Outputs, x: Array, out: Array) -> None:
    """Launch out = x, both of them contiguous and of types that kernels store."""
    vector = vector_of(min(x, out, key=lambda a: a.itemsize), None, x, out)
    grid = flat_grid(x, x.size, vector)
    CAST(to, x, storage(x), storage(out), vector, grid=grid, x=x, y=out, size=x.size)


def scalar(to: Outputs, value: Any, dtype: DType, like: Array) -> Array:
    """A number as an array of shape (1,), which kernels read it from; such an array as it is."""
    if hasattr(value, "shape"):
        return ready(to, value, dtype)
    out = to.array("a number", (1,), dtype, like)
    to.launch(filled, writes=(out,), scalars=(float(value),))
    return out


def statistics_of(to: Outputs, x: Array) -> tuple[Array, int]:
    """(count, mean, var) and the elements from row to row: columns of a larger buffer are read where they are."""
    x = x if has_rows(x) else ready(to, x, np.float64)
    return x, row_stride(x)


def output(
    to: Outputs, field: str, shape: Sequence[int], dtype: DType, like: Array, *, there: bool = True,
    rows_apart: bool = False,
) -> Array:  # fmt: skip
    """The array that an output is written to, as `destination` has it.

    `rows_apart`: it may be columns of a larger buffer.
    """

    def takes(array: Array) -> bool:
        return bool(array.flags.c_contiguous or (rows_apart and has_rows(array)))

    return destination(to, field, shape, dtype, like, takes, "CUDA kernels write to contiguous", there=there)
