"""Matrix products by cublasLt, with precision, bias, algorithm and workspace fixed before the first call.

A plan takes addresses and a stream and allocates nothing, so a stream may be capturing when it is called. It must be
*built* before, because the choice of an algorithm may fail under capture. Eager and captured runs call the same plan.

**Rows and columns.** cublasLt's matrices are column-major. A row-major array with `ld` elements from row to row, read
column by column, is its transpose with leading dimension `ld`. So instead of C = op(A) op(B) the plan computes

    C^T (n, m) = op(B)^T op(A)^T

and moves nothing: cublasLt's first operand is the memory of B, its second that of A, its output that of C with `ldc`.
B stored (k, n) reads as B^T (n, k), which is op(B)^T; B stored (n, k), to be used transposed, reads as (k, n), and
cublasLt transposes it. A likewise. A row of cublasLt's output is a column of C: its bias has n elements and is added to
every row of C.

**The same bits every time.** The preference CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK limits how a sum that is split
over k is put together to COMPUTE_TYPE: the parts go to the workspace in the accumulator's type, and a separate step
sums them. INPLACE (the parts take turns at the output) and OUTPUT_TYPE (the parts rounded to 16 bits) are out; the plan
skips an algorithm that uses them nevertheless. Two streams that run at once need a workspace each.
"""

import ctypes
from ctypes import byref, c_double, c_float, c_int, c_size_t
from functools import cache
from threading import Lock
from typing import NamedTuple

from ...errors import BackendError, InputError
from . import cublaslt_api as api

ALIGNMENT = 16  # bytes: the widest access of any kernel, and what TMA needs
WORKSPACE_ALIGNMENT = 256  # bytes
WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper and Blackwell, more than it does for others
CHOICES = 8  # algorithms that the heuristic returns

TYPES = {
    "float32": api.DataType.R_32F, "float64": api.DataType.R_64F, "float16": api.DataType.R_16F,
    "bfloat16": api.DataType.R_16BF,
}  # fmt: skip
COMPUTE = {
    ("float64", "highest"): api.Compute.F64,
    ("float32", "highest"): api.Compute.F32,
    ("float32", "tf32"): api.Compute.F32_FAST_TF32,
    ("float16", "highest"): api.Compute.F32,
    ("bfloat16", "highest"): api.Compute.F32,
}


class Matrix(NamedTuple):
    """A matrix in column-major order, and whether it is used transposed."""

    rows: int
    cols: int
    ld: int
    type: api.DataType
    operation: api.Operation = api.Operation.N


class Product(NamedTuple):
    """C (m, n) = op(A) op(B) [+ C] [+ bias], row-major: all that a plan depends on, apart from the device.

    Attributes:
        dtype: Of A and B. Sums are float32, for float64 float64.
        out_dtype: Of C and the bias: dtype, or float32 for 16-bit arrays.
        transpose_a: A is stored (k, m), not (m, k); `transpose_b` likewise.
        accumulate: Whether the old C is added.
        precision: "highest" multiplies the arrays as they are, "tf32" float32 arrays rounded to that.
        lda: Elements from row to row of the stored A; `ldb` and `ldc` likewise.
        alignment: A power of two, in bytes, that divides every address of the calls.
    """

    m: int
    n: int
    k: int
    dtype: str
    out_dtype: str
    transpose_a: bool
    transpose_b: bool
    accumulate: bool
    bias: bool
    precision: str
    lda: int
    ldb: int
    ldc: int
    alignment: int

    def __str__(self) -> str:
        a = f"A ({self.k}, {self.m})^T" if self.transpose_a else f"A ({self.m}, {self.k})"
        b = f"B ({self.n}, {self.k})^T" if self.transpose_b else f"B ({self.k}, {self.n})"
        plus = f"{' + C' if self.accumulate else ''}{' + bias' if self.bias else ''}"
        types = self.dtype if self.dtype == self.out_dtype else f"{self.dtype} to {self.out_dtype}"
        strides = f"strides {self.lda}, {self.ldb}, {self.ldc}"
        return f"C ({self.m}, {self.n}) = {a} {b}{plus}, {types}, precision {self.precision}, {strides}"

    def column_major(self) -> tuple[Matrix, Matrix, Matrix]:
        """cublasLt's first operand (the memory of B), its second (that of A) and its output (that of C)."""
        type_ = TYPES[self.dtype]
        shape_b = (self.k, self.n) if self.transpose_b else (self.n, self.k)
        shape_a = (self.m, self.k) if self.transpose_a else (self.k, self.m)
        return (
            Matrix(*shape_b, self.ldb, type_, api.Operation(self.transpose_b)),
            Matrix(*shape_a, self.lda, type_, api.Operation(self.transpose_a)),
            Matrix(self.n, self.m, self.ldc, TYPES[self.out_dtype]),
        )


class Descriptors:
    """A product as cublasLt's objects; they need the library, but no GPU."""

    def __init__(self, library: api.Library, product: Product) -> None:
        first, second, out = product.column_major()
        compute = COMPUTE[product.dtype, product.precision]
        scale = api.DataType.R_64F if compute is api.Compute.F64 else api.DataType.R_32F
        self.matmul = api.Descriptor(library, api.MatmulDesc, compute, scale)
        self.matmul.set(api.MatmulDesc.TRANSA, first.operation)
        self.matmul.set(api.MatmulDesc.TRANSB, second.operation)
        self.matmul.set(api.MatmulDesc.EPILOGUE, api.Epilogue.BIAS if product.bias else api.Epilogue.DEFAULT)
        if product.bias:
            self.matmul.set(api.MatmulDesc.BIAS_POINTER, product.alignment)  # the heuristic reads only its alignment
        self.first, self.second, self.out = (
            api.Descriptor(library, api.MatrixLayout, x.type, x.rows, x.cols, x.ld) for x in (first, second, out)
        )
        self.preference = api.Descriptor(library, api.MatmulPreference)
        self.preference.set(api.MatmulPreference.MAX_WORKSPACE_BYTES, WORKSPACE)
        self.preference.set(api.MatmulPreference.REDUCTION_SCHEME_MASK, api.ReductionScheme.COMPUTE_TYPE)
        for operand in "ABCD":
            self.preference.set(api.MatmulPreference[f"MIN_ALIGNMENT_{operand}_BYTES"], product.alignment)


class Gemm:
    """A product with its algorithm: `plan(a, b, c, bias, workspace, stream)` enqueues it. Built by `build`."""

    def __init__(
        self, library: api.Library, handle: api.Handle, product: Product, descriptors: Descriptors,
        chosen: api.HeuristicResult,
    ) -> None:  # fmt: skip
        self.product, self.descriptors = product, descriptors
        self._library, self._handle, self._algo, self._lock = library, handle, chosen.algo, Lock()
        scalar = c_double if product.dtype == "float64" else c_float
        self._alpha, self._beta = scalar(1), scalar(product.accumulate)
        # Addresses that never change, so that a call builds none of them again.
        self._fixed = byref(self._alpha), byref(self._beta), byref(self._algo)
        self._mask = product.alignment - 1

    def __call__(self, a: int, b: int, c: int, bias: int | None, workspace: int, stream: int) -> None:
        """Enqueue the product on a stream.

        Args:
            a: The address of A on the device; `b` and `c` likewise.
            bias: The address of (n,) numbers in the dtype of C, None for a product without a bias.
            workspace: The address of WORKSPACE bytes, a multiple of 256.
            stream: A cudaStream_t.

        Raises:
            InputError: An address does not fit the plan.
            BackendError: cublasLt refuses; the text names its status.
        """
        given = bias is not None
        if (a | b | c | (bias or 0)) & self._mask or workspace % WORKSPACE_ALIGNMENT or given != self.product.bias:
            places = ", ".join(f"{x:#x}" for x in (a, b, c, bias, workspace) if x is not None)
            needs = f"{self.product.alignment} bytes, the workspace to {WORKSPACE_ALIGNMENT}, and"
            raise InputError(
                f"gemm: {self.product}: the addresses {places} must be aligned to {needs} a bias must be given just "
                "where the product has one"
            )
        if bias is None:
            self._enqueue(a, b, c, workspace, stream)
            return
        with self._lock:  # the address is part of the descriptor, which threads share
            self.descriptors.matmul.set(api.MatmulDesc.BIAS_POINTER, bias)
            self._enqueue(a, b, c, workspace, stream)

    def _enqueue(self, a: int, b: int, c: int, workspace: int, stream: int) -> None:
        (alpha, beta, algo), built = self._fixed, self.descriptors
        out = built.out.pointer
        self._library.call(
            "cublasLtMatmul",
            *(self._handle.pointer, built.matmul.pointer),
            *(alpha, b, built.first.pointer, a, built.second.pointer),
            *(beta, c, out, c, out),
            *(algo, workspace, WORKSPACE, stream),
            what=self.product,
        )


def alignment_of(*addresses: int | None) -> int:
    """The largest power of two up to 16 that divides all addresses."""
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


@cache
def plan_of(product: Product, device: int) -> Gemm | api.Refusal:
    """The plan of a product on the *current* device, whose number is `device`; a Refusal says why there is none.

    Raises:
        InputError: A size is 0, or the precision is not one of the dtype.
        BackendError: The library fails.
    """
    known = [precision for dtype, precision in COMPUTE if dtype == product.dtype]
    if product.precision not in known:
        raise InputError(
            f"gemm: precision {product.precision!r} does not go with {product.dtype}; take {' or '.join(known)}"
        )
    if min(product[:3]) < 1:
        raise InputError(f"gemm: {product}: sizes must be positive")
    opened = _handle(device)
    return opened if isinstance(opened, api.Refusal) else build(*opened, product)


def build(library: api.Library, handle: api.Handle, product: Product) -> Gemm | api.Refusal:
    """The plan with the heuristic's first algorithm whose results repeat, or why there is none."""
    descriptors = Descriptors(library, product)
    results, count = (api.HeuristicResult * CHOICES)(), c_int()
    layouts = descriptors.first, descriptors.second, descriptors.out, descriptors.out
    function = "cublasLtMatmulAlgoGetHeuristic"
    status = library.status(
        function,
        *(handle.pointer, descriptors.matmul.pointer, *(layout.pointer for layout in layouts)),
        *(descriptors.preference.pointer, CHOICES, results, byref(count)),
    )
    if status in (api.Status.NOT_SUPPORTED, api.Status.INVALID_VALUE, api.Status.ARCH_MISMATCH):
        return api.Refusal(library.explain(function, status, product))
    if status != api.Status.SUCCESS:
        raise BackendError(library.explain(function, status, product))
    for chosen in results[: count.value]:
        fits = chosen.state == api.Status.SUCCESS and chosen.workspaceSize <= WORKSPACE
        if fits and reduction_of(library, chosen) in (api.ReductionScheme.NONE, api.ReductionScheme.COMPUTE_TYPE):
            return Gemm(library, handle, product, descriptors, chosen)
    return api.Refusal(f"cublasLt {library.version} has no algorithm whose results repeat for {product}")


def reduction_of(library: api.Library, chosen: api.HeuristicResult) -> int:
    """How an algorithm puts the parts of a split sum together."""
    attribute, written = api.AlgoConfig.REDUCTION_SCHEME, c_size_t()
    value = attribute.type()
    library.call(
        "cublasLtMatmulAlgoConfigGetAttribute",
        *(byref(chosen.algo), attribute.code, byref(value), ctypes.sizeof(value), byref(written)),
        what=attribute.name,
    )
    return int(value.value)


@cache
def _handle(_device: int) -> tuple[api.Library, api.Handle] | api.Refusal:
    library = api.load()
    if isinstance(library, api.Refusal):
        return library
    try:
        return library, api.Handle(library)
    except BackendError as error:
        return api.Refusal(str(error))
