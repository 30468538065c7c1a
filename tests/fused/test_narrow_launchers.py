"""Launchers in 16 bits and in tf32, on the simulated device: what they launch, and within which bounds."""

from typing import Any

import numpy as np
import pytest

from bnengine.errors import BackendError
from bnengine.fused.cuda import cublaslt_api
from bnengine.ops import REGISTRY, Out, using
from bnengine.ops.update import RULES
from bnengine.runtime.memory import Arena, Memory
from tests.cuda_on_cpu.cases import STORED, Case, assert_within, fields
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import BFLOAT, FLOAT, HALF, Storage
from tests.fused.test_launchers import examples, run, upload


@pytest.mark.parametrize("storage", [HALF, BFLOAT], ids=lambda s: s.name)
@pytest.mark.parametrize("name", sorted(STORED))
def test_16_bit_arrays_are_computed_in_float32_and_stored_rounded(name, storage, device, require):
    narrow = np.dtype(require("ml_dtypes").bfloat16 if storage is BFLOAT else np.float16)
    for example in examples(name, storage):
        case = Case(name, Path(storage, 1), example)
        given = [a.view(narrow) if isinstance(a, np.ndarray) and a.dtype == storage.dtype else a for a in case.given]
        got = run(device, name, given, example.options)
        for field, expected in case.expected.items():
            assert (got[field] is None) == (expected is None), (case.what, field)
            if expected is not None:
                stored = got[field].dtype == narrow
                case.check(field, got[field].view(storage.dtype) if stored else got[field], stored=stored)


@pytest.mark.parametrize("storage", [HALF, BFLOAT], ids=lambda s: s.name)
@pytest.mark.parametrize("name", RULES)
def test_the_shadow_is_written_by_the_update_s_only_launch_and_not_in_a_skipped_step(name, storage, simulated, require):
    kind = narrow_name(storage, require)
    for example in REGISTRY[name].contract.examples(np.random.default_rng(0), kind):
        reference = fields(REGISTRY[name], REGISTRY[name].reference(*example.args, **example.options))
        copy16 = simulated.on_device(example.args[-1])
        before = len(simulated.STATE.launches)
        with using("fused"):
            args = [upload(simulated, a) for a in example.args[:-1]]
            result = REGISTRY[name](*args, copy16, memory=Memory(), into={"copy16": Out(copy16)}, **example.options)
        got = fields(REGISTRY[name], simulated.off_device(result))
        assert len(simulated.STATE.launches) == before + 1
        assert got["copy16"].dtype.name == kind
        ok = example.label != "skipped"
        assert got["copy16"].tobytes() == (got["parameters"].astype(kind) if ok else example.args[-1]).tobytes()
        assert ok or got["parameters"].tobytes() == reference["parameters"].tobytes()


def narrow_name(storage: Storage, require: Any) -> str:
    if storage is BFLOAT:
        require("ml_dtypes")
    return "bfloat16" if storage is BFLOAT else "float16"


@pytest.mark.parametrize(("activation", "bias", "launches"), [
    ("identity", False, 0), ("identity", True, 1), ("relu", False, 1), ("relu", True, 1),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_way_back_through_a_product_takes_no_launch_that_nothing_needs(
    activation, bias, launches, dtype, simulated, rng
):
    dy, x, W = (rng.standard_normal(shape).astype(dtype) for shape in ((40, 16), (40, 24), (24, 16)))
    run(simulated, "affine_backward", (dy, x, W, dy), {"activation": activation, "bias_gradient": bias})
    assert len(simulated.STATE.launches) == launches
    assert len(simulated.STATE.model.streams) == 2  # dW and dx


def test_tf32_is_asked_of_cublaslt_and_nobody_else_pretends_to_it(simulated, rng, monkeypatch):
    dy, x, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 16), (40, 24), (24, 16)))
    x64, W64 = x.astype(np.float64), W.astype(np.float64)
    memory = Arena("fused")
    with memory.recording([]) as plan, monkeypatch.context() as patched:
        patched.setattr(plan, "own", lambda *_: None)
        patched.setattr(plan, "unwritten", lambda _launch: None)
        patched.setattr(plan, "record", plan.launches.append)
        y = run(simulated, "affine", (x, W), {"precision": "tf32"}, memory=memory)["out"]
        assert_within(y, x64 @ W64, REGISTRY["affine"].contract.bound(FLOAT.unit, x64, W64, precision="tf32"), "tf32")
        run(simulated, "affine_backward", (dy, x, W, dy), {"precision": "tf32", "bias_gradient": False}, memory=memory)
    assert [launch.kernel.plan.product.precision for launch in plan.launches] == ["tf32"] * 3
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    simulated.forget()
    run(simulated, "affine", (x, W), {"precision": "highest"})
    with pytest.raises(BackendError, match=r"'tf32': products .* since there is none; take precision='highest'"):
        run(simulated, "affine", (x, W), {"precision": "tf32"})


def test_without_cublaslt_gradients_of_16_bit_products_have_float32_s_digits_and_range(simulated, monkeypatch):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("there is none"))
    x, dy = np.full((300, 4), 16, np.float16), np.full((300, 3), 16, np.float16)
    dy[0, 0] = 1  # a sum of 76800 is beyond float16, and 76560 would be rounded in bfloat16
    got = run(simulated, "affine_backward", (dy, x, np.ones((4, 3), np.float16), dy), {})
    np.testing.assert_array_equal(got["dW"], np.tile(np.float32([76560, 76800, 76800]), (4, 1)))
    assert got["dW"].dtype == np.float32
