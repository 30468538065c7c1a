"""What launchers of CUDA kernels launch: products by cublasLt, one launch or two, casts, what a call is bound to."""

from typing import Any

import numpy as np
import pytest

from bnengine.errors import BackendError
from bnengine.fused.cuda import _launch, cublaslt_api
from bnengine.ops import REGISTRY, Example, Out, using
from bnengine.runtime.memory import Arena, Memory
from bnengine.runtime.plan import name_of
from tests.contracts.cases import UNIT, Case, assert_within, fields


def run(device: Any, name: str, args: Any, options: Any, into: Any = None, memory: Memory | None = None) -> Any:
    """The outputs of the fused version, by name, on the host."""
    given = [upload(device, a) for a in args]
    options = {key: upload(device, value) for key, value in options.items()}
    with using("fused"):
        result = REGISTRY[name](*given, memory=memory or Memory(), into=into, **options)
    return fields(REGISTRY[name], device.off_device(result))


def upload(device: Any, value: Any) -> Any:
    return device.on_device(value) if isinstance(value, np.ndarray) else value


def examples(name: str) -> Any:
    return REGISTRY[name].contract.examples(np.random.default_rng(0), "float32")


def test_without_cublaslt_products_are_those_of_cupy(simulated, monkeypatch):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    for name in ("affine", "affine_backward"):
        for example in examples(name):
            memory = Arena("fused")
            with memory.recording([]) as plan, monkeypatch.context() as patched:
                patched.setattr(plan, "own", lambda *_: None)
                patched.setattr(plan, "unwritten", lambda _launch: None)
                patched.setattr(plan, "record", plan.launches.append)
                got = run(simulated, name, example.args, example.options, memory=memory)
            Case(name, example, "float32").check(got, kernels=True)
            products = [launch.kernel for launch in plan.launches if not getattr(launch.kernel, "capturable", True)]
            assert {kernel.__name__ for kernel in products} == {"cupy.matmul (there is none)"}
            ones = {f: np.ones_like(got[f]) for f in REGISTRY[name].accumulates if got[f] is not None}
            targets = {f: Out(simulated.on_device(a), adds=True) for f, a in ones.items()}
            added = run(simulated, name, example.args, example.options, targets)
            for field in targets:
                unit = 4 * UNIT["float32"] * (1 + np.abs(got[field]))
                assert_within(added[field], 1 + got[field], unit, f"{name}, {example.label}, {field}")
    assert not simulated.STATE.model.streams


def test_products_run_on_cublaslt_in_the_workspace_of_the_stream(simulated, rng):
    x, W, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 12), (12, 8), (8,)))
    run(simulated, "affine", (x, W, b), {})
    assert not simulated.STATE.launches  # the bias went with the product
    run(simulated, "affine_backward", (x[:, :8].copy(), x, W, x[:, :8].copy()), {})
    ((address, size, stream),) = set(simulated.STATE.model.streams)
    assert len(simulated.STATE.model.streams) == 3
    assert (address % 256, size, stream) == (0, 32 << 20, 0)


# The simulated device has 3 multiprocessors, which 6 blocks fill, and 99 KiB of shared memory for each; 16 are the
# kernel's own. A slice is 32 channels of float32: 128 bytes a row of x, as many of dz in the backward pass.
THERE, BACK = ["batch_norm"], ["batch_norm_gradients"]
APART, BACK_APART = ["moments", "normalize"], ["batch_norm_sums", "batch_norm_backward"]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "kernels"),
    [
        ("batch_norm", (664, 64), "float32", THERE),
        ("batch_norm", (665, 64), "float32", APART),
        ("normalize_backward", (332, 64), "float32", BACK),
        ("normalize_backward", (333, 64), "float32", BACK_APART),
        # One slice, of which every row is a separate read and 64 are a round of them: three rounds, or more.
        ("batch_norm", (192, 9), "float32", THERE),
        ("batch_norm", (193, 9), "float32", APART),
        ("normalize_backward", (192, 9), "float32", BACK),
        ("normalize_backward", (193, 9), "float32", BACK_APART),
        # Seven slices fill the device without a split.
        ("batch_norm", (300, 32 * 6 + 1), "float32", THERE),
        ("batch_norm", (16, 8), "float64", THERE),
    ],
)
def test_slices_that_fit_on_the_chip_take_one_launch(name, shape, dtype, kernels, simulated, rng):
    """Where they fill the device or are short."""
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    statistics = REGISTRY["moments"].reference(x).batch
    args = (x, gamma, beta) if name == "batch_norm" else (dy, x, dy, statistics, gamma, beta)
    options = {"activation": "relu"}
    got = run(simulated, name, args, options)
    assert [name_.removeprefix("bnengine::").partition("<")[0] for name_ in simulated.STATE.launches] == kernels
    Case(name, Example("large", args, options), dtype).check(got, kernels=True)


def test_other_ranges_are_frozen_in_another_call(device):
    example = next(iter(examples("sgd")))
    for begin in (3, 11):
        options = {**example.options, "frozen": ((begin, begin + 5),)}
        new = run(device, "sgd", example.args, options)["parameters"]
        assert np.flatnonzero(new == example.args[0]).tolist() == list(range(begin, begin + 5))


@pytest.mark.parametrize(("activation", "bias", "launches"), [
    ("identity", False, 0), ("identity", True, 1), ("relu", False, 1), ("relu", True, 1),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_backward_of_a_product_launches_only_what_is_needed(activation, bias, launches, dtype, simulated, rng):
    dy, x, W = (rng.standard_normal(shape).astype(dtype) for shape in ((40, 16), (40, 24), (24, 16)))
    run(simulated, "affine_backward", (dy, x, W, dy), {"activation": activation, "bias_gradient": bias})
    assert len(simulated.STATE.launches) == launches
    assert len(simulated.STATE.model.streams) == 2  # dW and dx


def test_only_cublaslt_computes_in_tf32(simulated, rng, monkeypatch):
    dy, x, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 16), (40, 24), (24, 16)))
    x64, W64 = x.astype(np.float64), W.astype(np.float64)
    memory = Arena("fused")
    with memory.recording([]) as plan, monkeypatch.context() as patched:
        patched.setattr(plan, "own", lambda *_: None)
        patched.setattr(plan, "unwritten", lambda _launch: None)
        patched.setattr(plan, "record", plan.launches.append)
        y = run(simulated, "affine", (x, W), {"precision": "tf32"}, memory=memory)["out"]
        assert_within(
            y, x64 @ W64, REGISTRY["affine"].contract.bound(UNIT["float32"], x64, W64, precision="tf32"), "tf32"
        )
        run(simulated, "affine_backward", (dy, x, W, dy), {"precision": "tf32", "bias_gradient": False}, memory=memory)
    assert [launch.kernel.plan.product.precision for launch in plan.launches] == ["tf32"] * 3
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    simulated.forget()
    run(simulated, "affine", (x, W), {"precision": "highest"})
    with pytest.raises(BackendError, match=r"'tf32': products .* since there is none; take precision='highest'"):
        run(simulated, "affine", (x, W), {"precision": "tf32"})


def test_without_cublaslt_16_bit_gradients_are_float32(simulated, monkeypatch):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    x, dy = np.full((300, 4), 16, np.float16), np.full((300, 3), 16, np.float16)
    dy[0, 0] = 1  # a sum of 76800 is beyond float16, and 76560 would be rounded in bfloat16
    got = run(simulated, "affine_backward", (dy, x, np.ones((4, 3), np.float16), dy), {})
    np.testing.assert_array_equal(got["dW"], np.tile(np.float32([76560, 76800, 76800]), (4, 1)))
    assert got["dW"].dtype == np.float32


def shifted(device: Any, like: np.ndarray) -> Any:
    """Memory of the same shape and dtype that begins one element off a 16-byte address."""
    return device.fresh((like.size + 1,), like.dtype)[1:].reshape(*like.shape)


def spread(device: Any, a: np.ndarray) -> Any:
    """The same array as every second element of a larger one."""
    memory = device.on_device(np.repeat(np.ascontiguousarray(a), 2, axis=-1))
    memory[..., 1::2] = device.on_device(np.zeros_like(a))
    return memory[..., ::2]


DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_a_cast_kernel_converts_contiguous_arrays(source, target, device, require, rng):
    require("ml_dtypes")
    before, after = (device.backend().dtype(name) for name in (source, target))
    for shape in ((3, 5), (40, 64)):
        x = (rng.standard_normal(shape) * 100).astype(np.float32).astype(before)
        for given in (device.on_device(x), shifted(device, x), spread(device, x)):
            given[...] = device.on_device(x)
            memory = Arena("fused")
            with memory.recording([given]) as plan:
                got = _launch.ready(memory.outputs({}), given, after)
            assert got.dtype == after
            assert got.get().tobytes() == x.astype(after).tobytes()
            launched = [name_of(launch.kernel).partition("<")[0] for launch in plan.launches]
            gaps = not given.flags.c_contiguous
            assert launched == (["copied"] if gaps else ["bnengine::cast"] * (source != target))
