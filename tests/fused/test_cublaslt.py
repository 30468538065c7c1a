"""Products by cublasLt: the swap to column-major, what a plan is built of, its algorithm, its calls."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from bnengine.errors import BackendError, InputError
from bnengine.fused.cuda import cublaslt
from bnengine.fused.cuda import cublaslt_api as api
from bnengine.fused.cuda.cublaslt import WORKSPACE as SIZE
from bnengine.fused.cuda.cublaslt import Gemm, alignment_of, build, layout_of, plan_of
from bnengine.fused.cuda.cublaslt_api import Handle, Library, Refusal
from tests.fused.cublaslt_model import Choice, Model, decode, encode, planned, product, read

SIZES = [(7, 5, 3), (1, 9, 4), (6, 1, 5), (4, 3, 1), (33, 17, 65)]
TRANSPOSES = list(itertools.product((False, True), repeat=2))
ROUNDING = {"float64": 2**-53, "float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
WORKSPACE = 1 << 20  # an address; no test touches what is there


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """The model in place of the library that is installed, with no plan left over from another test."""
    model = Model()
    monkeypatch.setattr(api, "load", lambda: Library(model, "the model"))
    forget()
    yield model
    forget()


def forget() -> None:
    plan_of.cache_clear()
    cublaslt._handle.cache_clear()


class Memory:
    """A row-major array of the plan's dtype with padding of NaN after each row."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], dtype: str, padding: int) -> None:
        self.type, self.ld = cublaslt.TYPES[dtype], shape[1] + padding
        stored = encode(np.full((shape[0], self.ld), np.nan), self.type)
        stored[:, : shape[1]] = encode(rng.standard_normal(shape), self.type)
        # 16 bytes more than needed, so that the array can begin on a multiple of 16.
        self._bytes = np.zeros(stored.nbytes + 16, np.uint8)
        start = -self._bytes.ctypes.data % 16
        self.stored = self._bytes[start : start + stored.nbytes].view(stored.dtype).reshape(stored.shape)
        self.stored[...] = stored
        self.width = shape[1]

    @property
    def address(self) -> int:
        return self.stored.ctypes.data

    @property
    def values(self) -> np.ndarray:
        return decode(self.stored[:, : self.width], self.type)

    def untouched_padding(self) -> bool:
        return bool(np.isnan(decode(self.stored[:, self.width :], self.type)).all())


def check_product(
    rng: np.random.Generator,
    m: int,
    n: int,
    k: int,
    dtype: str = "float32",
    *,
    transposes: tuple[bool, bool] = (False, False),
    padding: tuple[int, int, int] = (0, 0, 0),
    accumulate: bool = False,
    bias: bool = False,
    out_dtype: str | None = None,
    precision: str = "highest",
) -> None:
    """The plan's result in host memory against float64, row-major and by NumPy's own product."""
    a = Memory(rng, (k, m) if transposes[0] else (m, k), dtype, padding[0])
    b = Memory(rng, (n, k) if transposes[1] else (k, n), dtype, padding[1])
    out = out_dtype or dtype
    c, vector = Memory(rng, (m, n), out, padding[2]), Memory(rng, (1, n), out, 0)
    op_a, op_b = a.values.T if transposes[0] else a.values, b.values.T if transposes[1] else b.values
    expected, size = op_a @ op_b, np.abs(op_a) @ np.abs(op_b)
    if accumulate:
        expected, size = expected + c.values, size + np.abs(c.values)
    else:
        c.stored[:, :n] = encode(np.full((m, n), np.nan), c.type)  # what is there must not be read
    if bias:
        expected, size = expected + vector.values, size + np.abs(vector.values)

    def given(x: Memory) -> int | None:
        return None if x.ld == x.width else x.ld

    plan = planned(
        m, n, k, dtype, transpose_a=transposes[0], transpose_b=transposes[1], accumulate=accumulate, bias=bias,
        lda=given(a), ldb=given(b), ldc=given(c), out_dtype=out_dtype, precision=precision,
    )  # fmt: skip
    before = vector.values
    plan(a.address, b.address, c.address, vector.address if bias else None, WORKSPACE, 0)
    assert np.all(np.abs(c.values - expected) <= 10 * ROUNDING[out] * size)
    assert all(x.untouched_padding() for x in (a, b, c))
    assert np.array_equal(vector.values, before)


@pytest.mark.parametrize("transposes", TRANSPOSES, ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.usefixtures("model")
def test_a_row_major_product_comes_out_of_a_column_major_library(rng, sizes, transposes):
    for padding, accumulate in itertools.product([(0, 0, 0), (3, 1, 2)], (False, True)):
        check_product(rng, *sizes, transposes=transposes, padding=padding, accumulate=accumulate)


@pytest.mark.parametrize("transposes", TRANSPOSES, ids=["NN", "NT", "TN", "TT"])
@pytest.mark.usefixtures("model")
def test_a_bias_is_added_to_every_row(rng, transposes):
    for accumulate in (False, True):
        check_product(rng, 7, 5, 3, transposes=transposes, bias=True, padding=(1, 2, 3), accumulate=accumulate)


@pytest.mark.parametrize(
    ("dtype", "out_dtype", "precision"),
    [(dtype, None, precision) for dtype, precision in cublaslt.COMPUTE]
    + [("float16", "float32", "highest"), ("bfloat16", "float32", "highest")],
)
@pytest.mark.usefixtures("model")
def test_every_storage_and_precision_gives_the_product(rng, dtype, out_dtype, precision):
    for bias in (False, True):
        options = {"out_dtype": out_dtype, "precision": precision, "bias": bias}
        check_product(rng, 9, 6, 11, dtype, transposes=(True, False), **options)


def test_a_product_is_described_in_row_major_words():
    turned = product(2, 3, 4, transpose_a=True, accumulate=True, bias=True)
    strides = "precision highest, strides 2, 3, 3"
    assert str(turned) == f"C (2, 3) = A (4, 2)^T B (4, 3) + C + bias, float32, {strides}"
    other = product(2, 3, 4, "float16", transpose_b=True, lda=2, ldb=3, out_dtype="float32")
    assert str(other) == f"C (2, 3) = A (2, 4) B (3, 4)^T, float16 to float32, {strides}"


@pytest.mark.parametrize(
    ("dtype", "precision", "compute"),
    [
        ("float32", "highest", "F32"),
        ("float32", "tf32", "F32_FAST_TF32"),
        ("float16", "highest", "F32"),
        ("bfloat16", "highest", "F32"),
        ("float64", "highest", "F64"),
    ],
)
@pytest.mark.usefixtures("model")
def test_highest_is_true_float32(dtype, precision, compute):
    at = read(planned(4, 4, 4, dtype, precision=precision).descriptors)
    assert at.matmul["COMPUTE_TYPE"] == api.Compute[compute]
    assert at.matmul["SCALE_TYPE"] == (api.DataType.R_64F if dtype == "float64" else api.DataType.R_32F)


@pytest.mark.usefixtures("model")
def test_the_heuristic_gets_workspace_alignment_and_reduction():
    at = read(planned(4, 4, 4, "float32", alignment=4, bias=True).descriptors)
    expected = {"MAX_WORKSPACE_BYTES": SIZE, "REDUCTION_SCHEME_MASK": api.ReductionScheme.COMPUTE_TYPE}
    assert at.preference == expected | {f"MIN_ALIGNMENT_{x}_BYTES": 4 for x in "ABCD"}
    assert at.matmul["BIAS_POINTER"] == 4  # an address that is aligned to four bytes and no more


def test_the_first_algorithm_whose_result_repeats_is_taken():
    atomic, rounded = Choice(reduction=1), Choice(reduction=4)
    failed, large = Choice(state=15), Choice(workspace=SIZE + 1)
    good, plain = Choice(reduction=2, workspace=SIZE), product(2, 3, 4)
    library = Library(Model((atomic, rounded, failed, large, good, Choice())), "the model")
    plan = build(library, Handle(library), plain)
    assert isinstance(plan, Gemm)
    assert plan._algo.data[0] == 5  # the fifth result, and nothing of the others
    refused = build(Library(Model((atomic, failed)), "the model"), Handle(library), plain)
    assert refused == Refusal(f"cublasLt 13.10.0 has no algorithm whose results repeat for {plain}")


@pytest.mark.parametrize("status", ["NOT_SUPPORTED", "INVALID_VALUE", "ARCH_MISMATCH"])
def test_a_product_that_is_not_offered_is_refused(model, status):
    model.fail["cublasLtMatmulAlgoGetHeuristic"] = api.Status[status]
    refused = plan_of(product(2, 3, 4, bias=True), 0)
    assert isinstance(refused, Refusal)
    assert f"CUBLAS_STATUS_{status} for C (2, 3) = A (2, 4) B (4, 3) + bias, float32" in refused.reason


def test_a_library_that_fails_raises_with_status_shapes_and_cure(model):
    model.fail["cublasLtMatmulAlgoGetHeuristic"] = api.Status.ALLOC_FAILED
    with pytest.raises(BackendError, match=r"cublasLt 13\.10\.0: .*ALLOC_FAILED for C \(2, 3\) = .*; free memory"):
        plan_of(product(2, 3, 4), 0)
    del model.fail["cublasLtMatmulAlgoGetHeuristic"]
    plan, model.fail["cublasLtMatmul"] = planned(2, 3, 4, "float32"), 99
    with pytest.raises(BackendError, match=r"the unknown status 99 for .*the library is the model"):
        plan(16, 16, 16, None, 0, 0)


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        ("NOT_INITIALIZED", "nvidia-smi"),
        ("ALLOC_FAILED", "free memory"),
        ("INVALID_VALUE", "build it for these arrays"),
        ("ARCH_MISMATCH", "on the device that runs it"),
        ("EXECUTION_FAILED", "CUDA_LAUNCH_BLOCKING=1"),
        ("NOT_SUPPORTED", "another precision"),
        ("MAPPING_ERROR", "the library is the model"),
    ],
)
def test_each_status_comes_with_its_cure(model, status, cure):
    plan = planned(2, 3, 4, "float32")
    model.fail["cublasLtMatmul"] = api.Status[status]
    with pytest.raises(BackendError, match=rf"returned CUBLAS_STATUS_{status} for .*{cure}"):
        plan(16, 16, 16, None, 0, 0)


def test_a_plan_is_built_once_and_a_call_builds_nothing(model, rng):
    plan = planned(7, 5, 3)
    assert planned(7, 5, 3, "float32", lda=3, ldb=5, ldc=5) is plan
    others = [{"accumulate": True}, {"lda": 4}, {"alignment": 4}, {"precision": "tf32"}, {"device": 1}, {"ldc": 9}]
    assert len({id(planned(7, 5, 3, "float32", **other)) for other in others} | {id(plan)}) == 7
    model.calls.clear()
    a, b, c = (Memory(rng, shape, "float32", 0) for shape in ((7, 3), (3, 5), (7, 5)))
    plan(a.address, b.address, c.address, None, WORKSPACE, 77)
    plan(a.address, b.address, c.address, None, WORKSPACE, 77)
    assert model.calls == ["cublasLtMatmul"] * 2
    assert model.streams == [(WORKSPACE, SIZE, 77)] * 2


def test_one_plan_serves_several_biases(model, rng):
    plan = planned(4, 3, 2, "float64", bias=True)
    a, b, c = (Memory(rng, shape, "float64", 0) for shape in ((4, 2), (2, 3), (4, 3)))
    for vector in [Memory(rng, (1, 3), "float64", 0) for _ in range(3)]:
        plan(a.address, b.address, c.address, vector.address, WORKSPACE, 0)
        assert np.allclose(c.values, a.values @ b.values + vector.values, rtol=0, atol=1e-14)
    assert model.calls.count("cublasLtMatmulAlgoGetHeuristic") == 1


def test_each_device_has_a_handle_that_is_destroyed(model):
    for device in (0, 1, 0):
        planned(2, 3, 4, "float32", device=device)
        planned(5, 3, 4, "float32", device=device)
    assert model.calls.count("cublasLtCreate") == 2
    assert len(model.objects) == 4 * 5  # a MatmulDesc, three layouts and a preference for each of the four plans
    forget()
    assert not model.objects
    assert model.calls.count("cublasLtDestroy") == 2


def test_without_a_driver_there_is_no_plan_but_a_reason(model):
    model.fail["cublasLtCreate"] = api.Status.NOT_INITIALIZED
    refused = plan_of(product(2, 3, 4), 0)
    assert isinstance(refused, Refusal)
    assert refused.reason.startswith("cublasLt 13.10.0: cublasLtCreate returned CUBLAS_STATUS_NOT_INITIALIZED; ")
    assert "no NVIDIA driver" in refused.reason


@pytest.mark.parametrize(
    ("arguments", "bias", "workspace"),
    [({}, None, 128), ({}, 16, 0), ({"bias": True}, None, 0), ({"bias": True}, 24, 0), ({"alignment": 32}, None, 0)],
)
@pytest.mark.usefixtures("model")
def test_addresses_that_do_not_fit_the_plan_are_refused(arguments, bias, workspace):
    with pytest.raises(InputError, match=r"the addresses 0x10, 0x10, 0x10, .* must be aligned to"):
        planned(2, 3, 4, **arguments)(16, 16, 16, bias, workspace, 0)


@pytest.mark.usefixtures("model")
def test_every_address_must_be_aligned_as_the_plan_says():
    plan = planned(2, 3, 4, "float32", bias=True)
    for i, address in itertools.product(range(4), (17, 18, 20, 24)):
        addresses = [16, 16, 16, 16]
        addresses[i] = address
        with pytest.raises(InputError, match="must be aligned to 16 bytes"):
            plan(*addresses, 0, 0)
    assert {planned(2, 3, 4, "float32", alignment=x).product.alignment for x in (1, 256)} == {1, 256}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16", "precision": "tf32"}, "'tf32' does not go with float16; take highest"),
        ({"dtype": "float64", "precision": "tf32"}, "'tf32' does not go with float64; take highest"),
        ({"m": 0}, "sizes must be positive"),
        ({"n": 0}, "sizes must be positive"),
        ({"k": 0}, "sizes must be positive"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=f"gemm: .*{message}"):
        plan_of(product(**{"m": 2, "n": 3, "k": 4} | options), 0)


def test_alignment_is_a_power_of_two_up_to_16():
    assert alignment_of(256, 512) == 16
    assert alignment_of(256, 24, None) == 8
    assert alignment_of(2, 1024) == 2
    assert alignment_of(7) == 1


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (np.zeros((4, 6), "f4"), (False, 6)),
        (np.zeros((4, 6), "f4").T, (True, 6)),
        (np.zeros((6, 4), "f4").T, (True, 4)),
        (np.zeros((4, 6), "f8")[:, 1:4], (False, 6)),
        (np.zeros((4, 6), "f8")[1:3, 1:4].T, (True, 6)),
        (np.zeros((4, 6), "f2")[::2], (False, 12)),
        (np.zeros((1, 6), "f4"), (False, 6)),
        (np.zeros((4, 6), "f4")[:, 2:3], (False, 6)),
        (np.zeros((4, 6), "f4")[2:3].T, (False, 1)),
        (np.zeros((4, 6), "f4")[:, ::2], None),
        (np.zeros((4, 6), "f4")[::-1], None),
        (np.broadcast_to(np.zeros(6, "f4"), (4, 6)), None),
    ],
)
def test_the_layout_of_a_view_is_told_from_its_strides(view, expected):
    assert layout_of(view.shape, view.strides, view.itemsize) == expected


@pytest.mark.usefixtures("model")
def test_a_view_is_multiplied_where_it_lies(rng):
    whole_a, whole_b, c = rng.standard_normal((9, 8)), rng.standard_normal((6, 10)), np.empty((6, 4))
    for a in (whole_a[1:7, 2:5], whole_a[2:5, 1:7].T, whole_a[::4, :6].T):
        for b in (whole_b[:3, 4:8], whole_b[1:5, 6:9].T, whole_b[3:, :4]):
            (transpose_a, lda), (transpose_b, ldb) = (layout_of(x.shape, x.strides, 8) for x in (a, b))
            options = {"transpose_a": transpose_a, "lda": lda, "transpose_b": transpose_b, "ldb": ldb}
            plan = planned(6, 4, 3, "float64", **options, alignment=8)
            plan(a.ctypes.data, b.ctypes.data, c.ctypes.data, None, 0, 0)
            assert np.allclose(c, a @ b, rtol=0, atol=1e-13)
