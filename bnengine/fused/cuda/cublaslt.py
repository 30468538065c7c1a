"""Matrix products by cublasLt with everything fixed beforehand: precision, epilogue, algorithm, workspace.

A plan takes addresses and a stream and allocates nothing, so that the stream may be capturing when it is called. It
must be *built* before: the choice of an algorithm may fail under capture. Eager runs and captured ones call the same
plan.

**Rows and columns.** cublasLt's matrices are column-major. A row-major array with `ld` elements from row to row is,
read column by column, its transpose with leading dimension `ld`. So instead of C = op(A) op(B) we ask for

    C^T (n, m) = op(B)^T op(A)^T

and nothing is moved: cublasLt's first operand is the memory of B, its second that of A, its output that of C with
`ldc`. B stored (k, n) reads as B^T (n, k), which is op(B)^T as it stands; B stored (n, k), to be used transposed, reads
as (k, n), and cublasLt transposes it. A likewise. A row of the output in cublasLt's words is a column of C: its bias
has n elements and is added to every row of C, and the bias gradient of its first operand (BGRADA) sums op(B) over k to
n elements.

**The same bits every time.** How a sum that is split over k is put together is limited by the preference
CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK to COMPUTE_TYPE: the parts go to the workspace in the accumulator's type and
are summed in a separate step. INPLACE (the parts take turns at the output) and OUTPUT_TYPE (the parts rounded to 16
bits) are out; an algorithm that says otherwise all the same is passed over. The workspace is the caller's: two streams
that run at once need one each.
"""

import ctypes
from ctypes import byref, c_double, c_float, c_int, c_size_t
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np

from ..._typing import DType
from ...errors import BackendError, InputError
from . import cublaslt_api as api
from .cublaslt_api import (
    AlgoConfig,
    Compute,
    DataType,
    Descriptor,
    Epilogue,
    Handle,
    HeuristicResult,
    Library,
    MatmulDesc,
    MatmulPreference,
    MatrixLayout,
    Operation,
    ReductionScheme,
    Refusal,
    Status,
)

ALIGNMENT = 16  # bytes; the widest access of any kernel, and what TMA asks for
WORKSPACE_ALIGNMENT = 256  # bytes
_WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for Hopper and Blackwell, more than it does for others
_CHOICES = 8  # how many algorithms the heuristic is asked for

_TYPES = {
    "float32": DataType.R_32F,
    "float64": DataType.R_64F,
    "float16": DataType.R_16F,
    "bfloat16": DataType.R_16BF,
}
_COMPUTE = {
    ("float64", "highest"): Compute.F64,
    ("float32", "highest"): Compute.F32,
    ("float32", "tf32"): Compute.F32_FAST_TF32,
    ("float32", "bf16"): Compute.F32_FAST_16BF,
    ("float32", "fp16"): Compute.F32_FAST_16F,
    ("float16", "highest"): Compute.F32,
    ("float16", "fp16"): Compute.F32,
    ("bfloat16", "highest"): Compute.F32,
    ("bfloat16", "bf16"): Compute.F32,
}
_EPILOGUES = {
    None: Epilogue.DEFAULT,
    "relu": Epilogue.RELU,
    "bias": Epilogue.BIAS,
    "relu_bias": Epilogue.RELU_BIAS,
    "bias_gradient": Epilogue.BGRADA,
}
_WITH_VECTOR = ("bias", "relu_bias", "bias_gradient")


class Matrix(NamedTuple):
    """A matrix in column-major order, and whether it is used transposed."""

    rows: int
    cols: int
    ld: int
    type: DataType
    operation: Operation = Operation.N


class Product(NamedTuple):
    """C (m, n) = epilogue(op(A) op(B) [+ C]), row-major: all that a plan depends on, but for the device."""

    m: int
    n: int
    k: int
    dtype: str
    out_dtype: str
    transpose_a: bool
    transpose_b: bool
    accumulate: bool
    precision: str
    epilogue: str | None
    lda: int
    ldb: int
    ldc: int
    alignment: int

    def __str__(self) -> str:
        a = f"A ({self.k}, {self.m})^T" if self.transpose_a else f"A ({self.m}, {self.k})"
        b = f"B ({self.n}, {self.k})^T" if self.transpose_b else f"B ({self.k}, {self.n})"
        plus, then = " + C" if self.accumulate else "", f", then {self.epilogue}" if self.epilogue else ""
        types = self.dtype if self.dtype == self.out_dtype else f"{self.dtype} to {self.out_dtype}"
        strides = f"strides {self.lda}, {self.ldb}, {self.ldc}"
        return f"C ({self.m}, {self.n}) = {a} {b}{plus}{then}, {types}, precision {self.precision}, {strides}"

    def column_major(self) -> tuple[Matrix, Matrix, Matrix]:
        """cublasLt's first operand (the memory of B), its second (that of A) and its output (that of C)."""
        type_ = _TYPES[self.dtype]
        shape_b = (self.k, self.n) if self.transpose_b else (self.n, self.k)
        shape_a = (self.m, self.k) if self.transpose_a else (self.k, self.m)
        return (
            Matrix(*shape_b, self.ldb, type_, Operation(self.transpose_b)),
            Matrix(*shape_a, self.lda, type_, Operation(self.transpose_a)),
            Matrix(self.n, self.m, self.ldc, _TYPES[self.out_dtype]),
        )


class Descriptors:
    """A product in cublasLt's objects; they need the library, but no GPU."""

    def __init__(self, library: Library, product: Product) -> None:
        first, second, out = product.column_major()
        compute = _COMPUTE[product.dtype, product.precision]
        scale = DataType.R_64F if compute is Compute.F64 else DataType.R_32F
        self.matmul = Descriptor(library, MatmulDesc, compute, scale)
        self.matmul.set(MatmulDesc.TRANSA, first.operation)
        self.matmul.set(MatmulDesc.TRANSB, second.operation)
        self.matmul.set(MatmulDesc.EPILOGUE, _EPILOGUES[product.epilogue])
        if product.epilogue in _WITH_VECTOR:
            # The heuristic looks at no more of this address than how it is aligned.
            self.matmul.set(MatmulDesc.BIAS_POINTER, product.alignment)
        self.first, self.second, self.out = (
            Descriptor(library, MatrixLayout, x.type, x.rows, x.cols, x.ld) for x in (first, second, out)
        )
        self.preference = Descriptor(library, MatmulPreference)
        self.preference.set(MatmulPreference.MAX_WORKSPACE_BYTES, _WORKSPACE)
        self.preference.set(MatmulPreference.REDUCTION_SCHEME_MASK, ReductionScheme.COMPUTE_TYPE)
        for operand in "ABCD":
            self.preference.set(MatmulPreference[f"MIN_ALIGNMENT_{operand}_BYTES"], product.alignment)


class Algorithm(NamedTuple):
    """What the heuristic chose, in the library's own numbers; `workspace` in bytes."""

    id: int
    tile: int
    split_k: int
    reduction: int
    workspace: int
    waves: float


class Gemm:
    """A product with its algorithm: `plan(a, b, c, bias, workspace, stream)` enqueues it. Built by `gemm_plan`."""

    def __init__(
        self, library: Library, handle: Handle, product: Product, descriptors: Descriptors, chosen: HeuristicResult
    ) -> None:
        self.product, self.descriptors, self.algorithm = product, descriptors, _described(library, chosen)
        self._library, self._handle, self._algo, self._lock = library, handle, chosen.algo, Lock()
        scalar = c_double if product.dtype == "float64" else c_float
        self._alpha, self._beta = scalar(1), scalar(product.accumulate)
        self._vector = product.epilogue in _WITH_VECTOR
        # Addresses that never change, so that a call builds none of them again.
        self._fixed = byref(self._alpha), byref(self._beta), byref(self._algo)
        self._mask = product.alignment - 1

    def __call__(self, a: int, b: int, c: int, bias: int | None, workspace: int, stream: int) -> None:
        """Enqueue the product on `stream`; all arguments are addresses on the device, `stream` a cudaStream_t.

        bias: (n,) of the output's dtype, read by "bias" and "relu_bias", written by "bias_gradient", else None.
        workspace: workspace_bytes(device) bytes, aligned to 256 bytes. InputError if an address does not fit the plan,
        BackendError with cublasLt's status if it refuses.
        """
        if (a | b | c | (bias or 0)) & self._mask or workspace % WORKSPACE_ALIGNMENT or (bias is None) == self._vector:
            raise InputError(_misfit(self.product, (a, b, c), bias, workspace))
        if bias is None:
            self._enqueue(a, b, c, workspace, stream)
            return
        with self._lock:  # the address is part of the descriptor, which threads share
            self.descriptors.matmul.set(MatmulDesc.BIAS_POINTER, bias)
            self._enqueue(a, b, c, workspace, stream)

    def _enqueue(self, a: int, b: int, c: int, workspace: int, stream: int) -> None:
        (alpha, beta, algo), built = self._fixed, self.descriptors
        out = built.out.pointer
        self._library.call(
            "cublasLtMatmul",
            *(self._handle.pointer, built.matmul.pointer),
            *(alpha, b, built.first.pointer, a, built.second.pointer),
            *(beta, c, out, c, out),
            *(algo, workspace, _WORKSPACE, stream),
            what=self.product,
        )


def workspace_bytes(_device: int = 0, /) -> int:
    """The bytes of workspace that every plan may use: 32 MiB on any device; one block serves all plans of a stream."""
    return _WORKSPACE


def alignment_of(*addresses: int | None) -> int:
    """The largest power of two up to 16 that divides all addresses: what to build a plan for."""
    together = ALIGNMENT
    for address in addresses:
        together |= address or 0
    return together & -together


def layout_of(shape: tuple[int, int], strides: tuple[int, int], itemsize: int) -> tuple[bool, int] | None:
    """(is it stored transposed, elements from row to row of what is stored) of a two-dimensional array.

    strides in bytes. None if neither axis is packed, so that only a copy of the array can be multiplied.
    """
    for transposed, (rows, cols), (row, col) in ((False, shape, strides), (True, shape[::-1], strides[::-1])):
        if cols != 1 and col != itemsize:
            continue
        if rows == 1:
            return transposed, cols
        if row % itemsize == 0 and row // itemsize >= cols:
            return transposed, row // itemsize
    return None


def gemm_plan(
    m: int,
    n: int,
    k: int,
    dtype: DType,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    accumulate: bool = False,
    precision: str = "highest",
    epilogue: str | None = None,
    lda: int | None = None,
    ldb: int | None = None,
    ldc: int | None = None,
    device: int = 0,
    out_dtype: DType | None = None,
    alignment: int = ALIGNMENT,
) -> Gemm | Refusal:
    """C (m, n) = epilogue(op(A) op(B) + C or nothing), row-major, on the *current* device, whose number is `device`.

    op(A) (m, k) is A, or A stored (k, m) with transpose_a; op(B) (k, n) likewise. lda, ldb, ldc: elements from row to
    row of the stored arrays, by default their widths. dtype: of A and B; out_dtype: of C and the bias, dtype if left
    out, or "float32" for 16-bit arrays. Sums are float32, for float64 float64; precision says what is multiplied:
    "highest" the arrays as they are, "tf32", "bf16" and "fp16" float32 arrays rounded to that on the way (16-bit
    arrays take their own name, too). alignment: a power of two, in bytes, that divides every address of the calls.

    epilogue: None; "bias" adds b (n,); "relu"; "relu_bias" is relu(. + b); "bias_gradient", for dW = x^T dz, also
    writes the sum of op(B) over k, (n,): db without a pass over dz. With `accumulate`, an epilogue works on the sum;
    "bias_gradient" does not go with it, since db would be overwritten. NVIDIA calls its relu max(x, 0) and does not
    say what becomes of NaN: a step that counts on NaN being seen applies its own.

    The same arguments give the same plan. A Refusal says why there is none: no library, no driver, or no algorithm for
    this product. InputError for arguments that make no sense, BackendError if the library fails.
    """
    name = _name(dtype)
    product = Product(
        *(int(m), int(n), int(k), name, name if out_dtype is None else _name(out_dtype)),
        *(bool(transpose_a), bool(transpose_b), bool(accumulate), precision, epilogue),
        lda=int((m if transpose_a else k) if lda is None else lda),
        ldb=int((k if transpose_b else n) if ldb is None else ldb),
        ldc=int(n if ldc is None else ldc),
        alignment=int(alignment),
    )
    _check(product)
    return _planned(product, int(device))


def build(library: Library, handle: Handle, product: Product) -> Gemm | Refusal:
    """The plan with the first algorithm of the heuristic that keeps the rules, or why there is none."""
    descriptors = Descriptors(library, product)
    results, count = (HeuristicResult * _CHOICES)(), c_int()
    layouts = descriptors.first, descriptors.second, descriptors.out, descriptors.out
    function = "cublasLtMatmulAlgoGetHeuristic"
    status = library.status(
        function,
        *(handle.pointer, descriptors.matmul.pointer, *(layout.pointer for layout in layouts)),
        *(descriptors.preference.pointer, _CHOICES, results, byref(count)),
    )
    if status in (Status.NOT_SUPPORTED, Status.INVALID_VALUE, Status.ARCH_MISMATCH):
        return Refusal(library.explain(function, status, product))
    if status != Status.SUCCESS:
        raise BackendError(library.explain(function, status, product))
    for chosen in results[: count.value]:
        fits = chosen.state == Status.SUCCESS and chosen.workspaceSize <= _WORKSPACE
        if fits and _repeats(_described(library, chosen)):
            return Gemm(library, handle, product, descriptors, chosen)
    return Refusal(f"cublasLt {library.version} has no algorithm whose results repeat for {product}")


@cache
def _handle(_device: int) -> tuple[Library, Handle] | Refusal:
    library = api.load()
    if isinstance(library, Refusal):
        return library
    try:
        return library, Handle(library)
    except BackendError as error:
        return Refusal(str(error))


@cache
def _planned(product: Product, device: int) -> Gemm | Refusal:
    found = _handle(device)
    return found if isinstance(found, Refusal) else build(*found, product)


def _described(library: Library, chosen: HeuristicResult) -> Algorithm:
    def get(attribute: AlgoConfig) -> int:
        held, written = attribute.type(), c_size_t()
        library.call(
            "cublasLtMatmulAlgoConfigGetAttribute",
            *(byref(chosen.algo), attribute.code, byref(held), ctypes.sizeof(held), byref(written)),
            what=attribute.name,
        )
        return int(held.value)

    numbers = (get(AlgoConfig.ID), get(AlgoConfig.TILE_ID), get(AlgoConfig.SPLITK_NUM))
    return Algorithm(*numbers, get(AlgoConfig.REDUCTION_SCHEME), chosen.workspaceSize, chosen.wavesCount)


def _repeats(algorithm: Algorithm) -> bool:
    return algorithm.reduction in (ReductionScheme.NONE, ReductionScheme.COMPUTE_TYPE)


def _name(dtype: DType) -> str:
    return dtype if isinstance(dtype, str) else str(np.dtype(dtype).name)


def _check(p: Product) -> None:
    known = [precision for dtype, precision in _COMPUTE if dtype == p.dtype]
    if not known:
        raise InputError(f"gemm: dtype {p.dtype!r} cannot be multiplied; take one of {', '.join(_TYPES)}")
    if p.precision not in known:
        raise InputError(f"gemm: precision {p.precision!r} does not go with {p.dtype}; take {' or '.join(known)}")
    if p.out_dtype != p.dtype and (p.out_dtype != "float32" or p.dtype == "float64"):
        raise InputError(f"gemm: {p.dtype} arrays do not give {p.out_dtype}; leave out_dtype out, or take 'float32'")
    if p.epilogue not in _EPILOGUES:
        raise InputError(f"gemm: there is no epilogue {p.epilogue!r}; take None, {', '.join(map(repr, _names()))}")
    if p.epilogue == "bias_gradient" and p.accumulate:
        raise InputError("gemm: 'bias_gradient' writes db and cannot add to it; sum dz over its rows by a kernel")
    widths = (p.m if p.transpose_a else p.k, p.k if p.transpose_b else p.n, p.n)
    if min(p.m, p.n, p.k) < 1 or any(ld < w for ld, w in zip((p.lda, p.ldb, p.ldc), widths, strict=True)):
        raise InputError(f"gemm: {p}: sizes must be positive, and strides no less than the widths {widths}")
    if not 1 <= p.alignment <= WORKSPACE_ALIGNMENT or p.alignment & (p.alignment - 1):
        raise InputError(f"gemm: alignment {p.alignment} is not a power of two up to 256; see alignment_of")


def _names() -> list[str]:
    return [name for name in _EPILOGUES if name is not None]


def _misfit(product: Product, addresses: tuple[int, ...], bias: int | None, workspace: int) -> str:
    if workspace % WORKSPACE_ALIGNMENT:
        return f"gemm: the workspace at {workspace:#x} is not aligned to {WORKSPACE_ALIGNMENT} bytes, as cublasLt asks"
    if (bias is None) == (product.epilogue in _WITH_VECTOR):
        needed = "needs the address of a bias" if bias is None else "takes no bias: give None"
        return f"gemm: the plan of {product} {needed}"
    places = ", ".join(f"{x:#x}" for x in (*addresses, *([] if bias is None else [bias])))
    return f"gemm: {product}: the addresses {places} are not aligned to {product.alignment} bytes; see alignment_of"
