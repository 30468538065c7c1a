"""Products by cublasLt on a GPU: the numbers, the same bits again, and a replay with the bits of an eager call."""

from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.errors import BackendError
from bnengine.fused.cuda import cublaslt
from bnengine.fused.cuda.cublaslt import WORKSPACE, Gemm
from tests.fused.cublaslt_model import decode, encode, planned
from tests.support import missing, require

pytestmark = pytest.mark.gpu
# The unit of rounding of what is multiplied: tf32 keeps 10 bits after the leading one, as float16 does.
UNITS = {"float64": 2**-53, "float32": 2**-24, "tf32": 2**-11, "float16": 2**-11, "bfloat16": 2**-8}


class Device:
    """The GPU with a stream and a workspace; arrays are held as they are stored, so that bfloat16 needs no library."""

    def __init__(self, cupy: Any) -> None:
        self.cupy, self.stream = cupy, cupy.cuda.Stream(non_blocking=True)
        self.workspace = cupy.empty(WORKSPACE, np.uint8)

    def upload(self, values: np.ndarray, dtype: str) -> tuple[Any, np.ndarray]:
        """The array on the device, and the values that it holds in float64."""
        stored = encode(values, cublaslt.TYPES[dtype])
        return self.cupy.asarray(stored), decode(stored, cublaslt.TYPES[dtype])

    def run(self, plan: Gemm, a: Any, b: Any, c: Any, bias: Any = None) -> None:
        self.cupy.cuda.Device().synchronize()
        vector = None if bias is None else bias.data.ptr
        plan(a.data.ptr, b.data.ptr, c.data.ptr, vector, self.workspace.data.ptr, self.stream.ptr)
        self.stream.synchronize()


@pytest.fixture
def device() -> Device:
    """The current GPU."""
    cupy = require("cupy")
    try:
        get_backend("cupy")
    except BackendError as error:
        missing("cupy", str(error))
    return Device(cupy)


@pytest.mark.parametrize("transposes", [(False, False), (False, True), (True, False)], ids=["NN", "NT", "TN"])
@pytest.mark.parametrize(("dtype", "precision"), cublaslt.COMPUTE, ids=str)
def test_each_precision_keeps_its_bound(device, rng, dtype, precision, transposes):
    for m, n, k in [(64, 128, 96), (257, 130, 515), (1, 7, 33), (100, 10, 1)]:
        a, values_a = device.upload(rng.standard_normal((k, m) if transposes[0] else (m, k)), dtype)
        b, values_b = device.upload(rng.standard_normal((n, k) if transposes[1] else (k, n)), dtype)
        c, values_c = device.upload(rng.standard_normal((m, n)), dtype)
        op_a, op_b = values_a.T if transposes[0] else values_a, values_b.T if transposes[1] else values_b
        options = {"transpose_a": transposes[0], "transpose_b": transposes[1], "precision": precision}
        device.run(planned(m, n, k, dtype, accumulate=True, **options), a, b, c)
        size = np.abs(op_a) @ np.abs(op_b) + np.abs(values_c)
        unit = max(UNITS[dtype], UNITS.get(precision, 0))
        error = np.abs(decode(c.get(), cublaslt.TYPES[dtype]) - (op_a @ op_b + values_c))
        assert np.all(error <= 10 * unit * size), float((error / size).max() / unit)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_bias_is_what_a_pass_over_the_output_would_add(device, rng, dtype):
    m, n, k = 96, 160, 512
    a, values_a = device.upload(rng.standard_normal((k, m)), dtype)
    b, values_b = device.upload(rng.standard_normal((k, n)), dtype)
    c, _ = device.upload(np.full((m, n), np.nan), dtype)
    bias, values_bias = device.upload(rng.standard_normal(n), dtype)
    device.run(planned(m, n, k, dtype, transpose_a=True, bias=True), a, b, c, bias)
    expected, size = values_a.T @ values_b + values_bias, np.abs(values_a.T) @ np.abs(values_b) + np.abs(values_bias)
    assert np.all(np.abs(decode(c.get(), cublaslt.TYPES[dtype]) - expected) <= 10 * UNITS[dtype] * size)


@pytest.mark.parametrize(("dtype", "precision"), cublaslt.COMPUTE, ids=str)
def test_a_product_with_a_long_sum_repeats_bit_for_bit(device, rng, dtype, precision):
    m, n, k = 32, 24, 1 << 16  # few outputs and much to sum: what invites a library to split the sum
    a, b = (device.upload(rng.standard_normal(shape), dtype)[0] for shape in ((k, m), (k, n)))
    plan = planned(m, n, k, dtype, transpose_a=True, precision=precision)
    results = set()
    for _ in range(20):
        c = device.upload(np.full((m, n), np.nan), dtype)[0]
        device.run(plan, a, b, c)
        results.add(c.get().tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("bias", [False, True])
def test_a_captured_product_gives_the_bits_of_the_eager_one(device, rng, bias):
    m, n, k = 256, 512, 784
    a, b, numbers = (device.upload(rng.standard_normal(shape), "float32")[0] for shape in ((m, k), (k, n), (n,)))
    vector = numbers if bias else None
    plan = planned(m, n, k, "float32", bias=bias)
    eager, replayed = (device.upload(np.full((m, n), np.nan), "float32")[0] for _ in range(2))
    device.run(plan, a, b, eager, vector)
    address = None if vector is None else vector.data.ptr
    device.cupy.cuda.Device().synchronize()
    with device.stream:
        device.stream.begin_capture()
        plan(a.data.ptr, b.data.ptr, replayed.data.ptr, address, device.workspace.data.ptr, device.stream.ptr)
        graph = device.stream.end_capture()
    assert np.isnan(replayed.get()).all(), "capturing runs nothing"
    for _ in range(3):
        graph.launch(device.stream)
    device.stream.synchronize()
    assert replayed.get().tobytes() == eager.get().tobytes()
