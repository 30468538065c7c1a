"""Launches of CUDA kernels: vector widths, grids, arguments as they are packed, how kernels take CuPy arrays."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..._typing import Array, DType
from ...runtime.memory import Outputs
from ...runtime.reasons import Kind, Reason
from .._arguments import Call, Device, How, copied
from .._declaration import ARRAYS, Declaration
from . import _load

BLOCK = (32, 8)  # kLanes and kWarps of kernels/cuda/common.cuh
LANES, WARPS, THREADS = 32, 8, 256
HELD = 8  # kHeld of kernels/cuda/slices.cuh
STORAGES = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
FULL = ("float32", "float64")  # the dtypes of parameters and optimizers
INDEX = "long long"
ANY_SHARED = 32 << 10  # bytes of shared memory that any launch may have, in addition to 16 KiB of the kernel


def activation_name(kind: str) -> str:
    """The enumerator of kernels/rules.h."""
    return f"bnengine::Activation::{kind}"


def target_name(target: Array) -> str:
    """CUDA's name for targets: class numbers, or one number for each class."""
    return STORAGES.get(target.dtype.name, INDEX)


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
    """The instance name<parameters> of kernels/cuda/<file>, on the device of `like`, with `shared` dynamic bytes."""
    given = f"<{', '.join(map(str, parameters))}>" if parameters else ""
    expression = f"bnengine::{name}{given}"
    function = _load.function(file, expression, like.device.id)
    if shared > ANY_SHARED:
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
        self, to: Outputs, call: Call | Array, *parameters: Any, grid: tuple[int, ...] = (1,), shared: int = 0,
        groups: int = 1, **given: Any,
    ) -> None:  # fmt: skip
        """Launch the instance for the dtype and on the device of `call`, or of its leading argument.

        What is not given is an attribute of the call. Counters count `groups` of blocks each.
        """
        of = self.sorted(given, call if isinstance(call, Call) else None)
        like = call.lead if isinstance(call, Call) else call
        if self.typed:
            parameters = (STORAGES[like.dtype.name], *parameters)
        bound = [(len(of["whole"]) + len(of["channels"]) + i, array) for i, array in enumerate(of["constants"])]
        if self.counters:
            bound.append((sum(len(of[section]) for section in ARRAYS), _load.arrivals(groups, like.device.id)))
        to.launch(
            kernel(like, self.file, self.name, *parameters, grid=grid, shared=shared, bound=tuple(bound)),
            whole=(*of["whole"], *of["channels"]),
            reads=of["reads"],
            writes=of["writes"],
            scratch=of["scratch"],
            scalars=(*indices(*of["integers"]), *reals(*of["reals"]), *flags(*of["flags"])),
        )


# -- grids


def flat_grid(like: Array, size: int, vector: int = 1, waves: int = 8) -> tuple[int]:
    """Blocks for a kernel that goes over `size` elements with strides of the grid."""
    return (max(1, min(-(-size // (vector * THREADS)), waves * _load.multiprocessors(like.device.id))),)


def slice_width(vector: int) -> int:
    """The channels of a slice."""
    return LANES if vector == 1 else 8 * vector


def sliced_grid(like: Array, rows: int, channels: int, vector: int, *, sums: bool) -> tuple[int, int]:
    """(slices of the channels, splits of the rows), as `Slice` of kernels/cuda/slices.cuh has them.

    Where the splits are summed up (`sums`), each thread gets a block of rows (kHeld), and fewer blocks
    are waited for. No more of them than run side by side: the few of a second wave would take as long as all of the
    first.
    """
    slices = -(-channels // slice_width(vector))
    rows_at_once = WARPS * (LANES * vector // slice_width(vector)) * (HELD if sums else 2)
    side_by_side = (2 if sums else 4) * _load.multiprocessors(like.device.id)
    return slices, max(1, min(side_by_side // slices, -(-rows // rows_at_once), 65535))


def vector_of(like: Array, columns: int | None, *arrays: Array | None) -> int:
    """The elements in 16 bytes, if all arrays and their rows (`columns` wide; None: flat) begin on 16 bytes; else 1."""
    vector = 16 // int(like.dtype.itemsize)
    if columns is not None and columns % vector:
        return 1
    return vector if all(a is None or a.data.ptr % 16 == 0 for a in arrays) else 1


def flat(arrays: str) -> How:
    """One launch over flat arrays of the call, the leading one first, by vectors where all of them allow it."""

    def how(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values = vars(call)
        vector = vector_of(call.lead, None, *(values[name] for name in arrays.split()))
        kind = (activation_name(call.kind),) if "kind" in values else ()
        return (vector, *kind), {"grid": flat_grid(call.lead, call.size, vector)}

    return how


# -- arrays


CAST = Kernel("cast", file="pointwise.cu", reads="x:S", writes="y", integers="size")


class _Cuda(Device):
    """CUDA kernels on CuPy arrays."""

    library: ClassVar[str] = "cupy"
    writes_to: ClassVar[str] = "CUDA kernels write to contiguous"

    def refusal(self, x: Any, *more: str) -> Reason | None:
        dtypes = (*FULL, *more) if more else tuple(STORAGES)
        if x.dtype.name not in dtypes:
            return Reason(Kind.ARRAY, f"{x.dtype.name} is not one of {', '.join(dtypes)}")
        older = _load.refusal()
        return None if older is None else Reason(Kind.MISSING, older)

    def wide(self, x: Array) -> DType:
        return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)

    def copy(self, to: Outputs, x: Array, out: Array) -> None:
        if not x.flags.c_contiguous or not {x.dtype.name, out.dtype.name} <= STORAGES.keys():
            to.launch(copied, reads=(x,), writes=(out,))
            return
        vector = vector_of(min(x, out, key=lambda a: a.itemsize), None, x, out)
        CAST(to, x, STORAGES[out.dtype.name], vector, grid=flat_grid(x, x.size, vector), x=x, y=out, size=x.size)

    def fill(self, to: Outputs, out: Array, value: float) -> None:
        to.launch(filled, writes=(out,), scalars=(value,))


def filled(out: Array, value: float) -> None:
    """A launch of CuPy: every element is `value`."""
    out.fill(value)


DEVICE = _Cuda()
ready, version, launches = DEVICE.ready, DEVICE.version, DEVICE.launches
