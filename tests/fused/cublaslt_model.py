"""What cublasLt's documentation says of its objects and of cublasLtMatmul, in NumPy, on column-major memory.

`Model` replaces the library that ctypes loads, and takes the same calls; `multiply` works on attributes, from a Model
or read back from the real library.
"""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bnengine.fused.cuda import cublaslt_api as api
from bnengine.fused.cuda.cublaslt import Descriptors, Gemm, Product, plan_of

KINDS = (api.MatmulDesc, api.MatrixLayout, api.MatmulPreference)
STORAGE = {0: np.dtype("f4"), 1: np.dtype("f8"), 2: np.dtype("f2"), 14: np.dtype("u2")}  # by cudaDataType_t
BFLOAT16 = 14


class Attributes(NamedTuple):
    """What the objects of a product hold, by the names of the attributes."""

    matmul: dict[str, int]
    first: dict[str, int]
    second: dict[str, int]
    out: dict[str, int]
    preference: dict[str, int]


def read(descriptors: Descriptors) -> Attributes:
    """Everything the library knows of the product, asked back from it."""

    def all_of(descriptor: api.Descriptor, kind: type[api.Attribute]) -> dict[str, int]:
        return {attribute.name: value_of(descriptor, attribute) for attribute in kind}

    d = descriptors
    layouts = (all_of(layout, api.MatrixLayout) for layout in (d.first, d.second, d.out))
    return Attributes(all_of(d.matmul, api.MatmulDesc), *layouts, all_of(d.preference, api.MatmulPreference))


def value_of(descriptor: api.Descriptor, attribute: api.Attribute) -> int:
    """The value of an attribute as the library has it."""
    value, written = attribute.type(), ctypes.c_size_t()
    descriptor._library.call(
        f"{descriptor._kind}GetAttribute",
        *(descriptor.pointer, attribute.code, ctypes.byref(value), ctypes.sizeof(value), ctypes.byref(written)),
        what=attribute.name,
    )
    return int(value.value or 0)


def product(m: int, n: int, k: int, dtype: str = "float32", **options: Any) -> Product:
    """A product of contiguous arrays of one dtype, unless the options say otherwise."""
    stored = {
        "lda": m if options.get("transpose_a") else k, "ldb": k if options.get("transpose_b") else n, "ldc": n,
        "out_dtype": dtype, "alignment": 16, "precision": "highest",
    }  # fmt: skip
    plain = dict.fromkeys(("transpose_a", "transpose_b", "accumulate", "bias"), False)
    given = {name: value for name, value in options.items() if value is not None}
    return Product(m, n, k, dtype, **{**plain, **stored, **given})


def planned(*arguments: Any, device: int = 0, **options: Any) -> Gemm:
    """The plan of such a product."""
    plan = plan_of(product(*arguments, **options), device)
    assert isinstance(plan, Gemm), plan
    return plan


def elements(address: int, type_: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """Memory at an address as an array, strides in elements; writing into it writes into the memory."""
    dtype = STORAGE[type_]
    count = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return as_strided(np.frombuffer(raw, dtype), shape, tuple(s * dtype.itemsize for s in strides), writeable=True)


def decode(stored: np.ndarray, type_: int) -> np.ndarray:
    """The stored values in float64."""
    if type_ == BFLOAT16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


def encode(values: np.ndarray, type_: int) -> np.ndarray:
    """Float64 values as they are stored, rounded to nearest even; what is too large is infinite."""
    if type_ != BFLOAT16:
        with np.errstate(over="ignore"):
            return values.astype(STORAGE[type_])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def matrix(layout: dict[str, int], address: int) -> np.ndarray:
    """The memory of a matrix: column j begins `LD` elements after column j - 1."""
    assert layout["ORDER"] == 0, "column-major"
    return elements(address, layout["TYPE"], (layout["ROWS"], layout["COLS"]), (1, layout["LD"]))


def multiply(at: Attributes, alpha: float, first: int, second: int, beta: float, c: int, d: int) -> None:
    """D = epilogue(alpha op(A) op(B) + beta C); C is not read where beta is 0."""

    def operand(layout: dict[str, int], address: int, operation: int) -> np.ndarray:
        stored = decode(matrix(layout, address), layout["TYPE"])
        return stored.T if operation == api.Operation.T else stored

    a = operand(at.first, first, at.matmul["TRANSA"])
    b = operand(at.second, second, at.matmul["TRANSB"])
    out = matrix(at.out, d)
    assert (a.shape[1], a.shape[0], b.shape[1]) == (b.shape[0], *out.shape), "the shapes do not fit"
    with np.errstate(all="ignore"):
        values = alpha * (a @ b)
        if beta:
            values += beta * decode(matrix(at.out, c), at.out["TYPE"])
    rows, epilogue = out.shape[0], at.matmul["EPILOGUE"]
    if epilogue == api.Epilogue.BIAS:
        vector = elements(at.matmul["BIAS_POINTER"], at.out["TYPE"], (rows,), (1,))
        values += decode(vector, at.out["TYPE"])[:, None]
    out[...] = encode(values, at.out["TYPE"])


class Choice(NamedTuple):
    """An algorithm that the model's heuristic offers."""

    reduction: int = 0
    workspace: int = 0
    state: int = 0


class Model:
    """A libcublasLt whose device is the host's memory."""

    def __init__(
        self, choices: tuple[Choice, ...] = (Choice(),), enqueue: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        self._enqueue = enqueue or (lambda work: work())
        self.choices, self.fail = choices, dict[str, int]()
        self.objects: dict[int, dict[int, int]] = {}
        self.calls: list[str] = []
        self.streams: list[tuple[int, int, int]] = []  # workspace, its bytes, stream
        self._numbers: Iterator[int] = iter(range(16, 1 << 20, 16))

    def cublasLtGetVersion(self) -> int:
        return 131000

    def __getattr__(self, name: str) -> Any:
        if name not in api.PROTOTYPES:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            assert len(arguments) == len(api.PROTOTYPES[name]), f"{name} takes another number of arguments"
            self.calls.append(name)
            return self.fail.get(name, 0) or self._run(name.removeprefix("cublasLt"), arguments)

        return call

    def _run(self, name: str, arguments: tuple[Any, ...]) -> int:
        for kind in KINDS:
            if name.startswith(kind.__name__):
                return self._object(kind, name.removeprefix(kind.__name__), *arguments)
        return int(getattr(self, f"_{name}")(*arguments) or 0)

    def _object(self, kind: type[api.Attribute], verb: str, first: Any, *rest: Any) -> int:
        if verb == "Create":
            first._obj.value = next(self._numbers)
            self.objects[first._obj.value] = dict(_created(kind, rest))
        elif verb == "Destroy":
            del self.objects[first.value]
        elif verb == "SetAttribute":
            attribute, value, size = rest
            if size != _size(kind, attribute):
                return int(api.Status.INVALID_VALUE)
            self.objects[first.value][attribute] = value._obj.value
        else:
            attribute, value, size, written = rest
            value._obj.value, written._obj.value = self.objects[first.value].get(attribute, 0), size
        return 0

    def _Create(self, handle: Any) -> None:
        handle._obj.value = next(self._numbers)

    def _Destroy(self, handle: Any) -> None:
        assert handle.value

    def _MatmulAlgoGetHeuristic(self, *arguments: Any) -> None:
        handle, matmul, first, second, c, d, preference, asked, results, count = arguments
        assert handle.value
        assert c.value == d.value
        layouts = [self._named(api.MatrixLayout, x) for x in (first, second, d)]
        (m, k), (k_too, n), out = (_used(x, y) for x, y in zip(layouts, _operations(self, matmul), strict=True))
        assert (k, (m, n)) == (k_too, out), "the shapes do not fit"
        allowed = self.objects[preference.value]
        assert allowed[api.MatmulPreference.MAX_WORKSPACE_BYTES.code] == 32 << 20
        count._obj.value = min(asked, len(self.choices))
        for i, choice in enumerate(self.choices[:asked]):
            results[i].algo.data[0] = i + 1
            results[i].workspaceSize, results[i].state = choice.workspace, choice.state

    def _MatmulAlgoConfigGetAttribute(self, algo: Any, attribute: int, value: Any, *_: Any) -> None:
        assert attribute == api.AlgoConfig.REDUCTION_SCHEME.code
        value._obj.value = self.choices[algo._obj.data[0] - 1].reduction

    def _Matmul(self, handle: Any, matmul: Any, *arguments: Any) -> None:
        alpha, first, first_layout, second, second_layout, beta, c, c_layout, d, d_layout, algo, *where = arguments
        assert handle.value
        assert c_layout.value == d_layout.value
        assert 1 <= algo._obj.data[0] <= len(self.choices)
        layouts = (self._named(api.MatrixLayout, x) for x in (first_layout, second_layout, d_layout))
        at = Attributes(self._named(api.MatmulDesc, matmul), *layouts, {})
        wide = at.matmul["SCALE_TYPE"] == api.DataType.R_64F
        assert {type(x._obj) for x in (alpha, beta)} == {ctypes.c_double if wide else ctypes.c_float}
        scales = alpha._obj.value, beta._obj.value
        self._enqueue(lambda: multiply(at, scales[0], first, second, scales[1], c, d))
        self.streams.append(tuple(where))

    def _named(self, kind: type[api.Attribute], pointer: Any) -> dict[str, int]:
        return {attribute.name: self.objects[pointer.value].get(attribute.code, 0) or 0 for attribute in kind}


def _operations(model: Model, matmul: Any) -> tuple[int, int, int]:
    of = model.objects[matmul.value]
    return of[api.MatmulDesc.TRANSA.code], of[api.MatmulDesc.TRANSB.code], api.Operation.N


def _used(layout: dict[str, int], operation: int) -> tuple[int, int]:
    shape = layout["ROWS"], layout["COLS"]
    return shape[::-1] if operation == api.Operation.T else shape


def _size(kind: type[api.Attribute], code: int) -> int:
    return next(ctypes.sizeof(attribute.type) for attribute in kind if attribute.code == code)


def _created(kind: type[api.Attribute], arguments: tuple[Any, ...]) -> Iterator[tuple[int, int]]:
    """What the arguments of ...Create set, and the defaults that the header names."""
    if kind is api.MatmulDesc:
        yield from ((api.MatmulDesc.COMPUTE_TYPE.code, arguments[0]), (api.MatmulDesc.SCALE_TYPE.code, arguments[1]))
        yield from ((api.MatmulDesc.EPILOGUE.code, 1), (api.MatmulDesc.BIAS_DATA_TYPE.code, -1))
    elif kind is api.MatrixLayout:
        names = api.MatrixLayout.TYPE, api.MatrixLayout.ROWS, api.MatrixLayout.COLS, api.MatrixLayout.LD
        yield from ((name.code, int(value)) for name, value in zip(names, arguments, strict=True))
    else:
        yield from ((api.MatmulPreference[f"MIN_ALIGNMENT_{x}_BYTES"].code, 256) for x in "ABCD")
        yield api.MatmulPreference.REDUCTION_SCHEME_MASK.code, 7
