"""Where kernels come from, what they refuse in plain words, and what a NumPy user sees of them."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu import _load as native
from bnengine.fused.cuda import _launch, _load
from bnengine.layers import BatchNorm, Dense
from bnengine.network.sequential import Sequential
from bnengine.ops import REGISTRY, total, using
from bnengine.runtime.memory import Memory
from bnengine.runtime.reasons import Kind, Reason
from tests.support import ROOT


@pytest.fixture
def no_native(monkeypatch):
    """The native kernels are missing."""
    monkeypatch.setattr(native, "available", lambda: "they are missing")


@pytest.mark.parametrize(("library", "folder"), [("numpy", "cpu"), ("cupy", "cuda")])
def test_every_op_has_a_launcher_for_each_library(library, folder):
    """But for rows out of raw data on the host, which a GPU does not read."""
    missing = [op for op in REGISTRY.values() if op.family and not op.versions(library)]
    files = {f"bnengine/fused/{folder}/{op.family}.py: @version(ops.{op.name})" for op in missing}
    files.discard("bnengine/fused/cuda/gather.py: @version(ops.gather_raw)")
    assert not files, f"launchers that are not written: {', '.join(files)}"


@pytest.mark.usefixtures("no_native")
def test_the_reason_for_no_native_kernels_is_reported():
    network = Sequential(Dense(3, 4), BatchNorm(4), Dense(4, 2), backend="numpy")
    choices = network.explain_dispatch()
    assert {choice.version for choice in choices} == {"reference"}
    for choice in choices:
        assert choice.reason == Reason(Kind.MISSING, "they are missing")
    memory = Memory()
    total(np.ones((2, 2)), np.ones((2, 2)), memory=memory)
    assert memory.explain()[0].why == "they are missing"
    with using("fused"), pytest.raises(InputError, match=r"total: .*they are missing\. Take 'auto'"):
        total(np.ones((2, 2)), np.ones((2, 2)))


def test_arrays_of_no_library_that_has_kernels_are_told_so(require):
    torch = require("torch")
    memory = Memory()
    total(torch.ones(2), torch.ones(2), memory=memory)
    (choice,) = memory.explain()
    assert choice.reason == Reason(Kind.NONE, "no fused version exists for torch")


def test_nothing_is_imported_for_an_array_of_numpy():
    code = (
        "import sys, numpy as np, bnengine as bn\n"
        "from bnengine.ops import total\n"
        "total(np.ones((2, 2)), np.ones((2, 2)))\n"
        "assert not [m for m in sys.modules if m.partition('.')[0] == 'cupy'], 'cupy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("op", [op for op in REGISTRY.values() if op.versions("cupy")], ids=lambda op: op.name)
def test_dtypes_without_kernels_are_named(op, simulated):
    (version,) = op.versions("cupy")
    for kind in ("int8", "bool"):
        reason = version.refuses(simulated.fresh((2,), kind))
        assert reason.kind is Kind.ARRAY
        assert re.match(rf"{kind} is not one of float32, float64", reason.text)
    assert version.refuses(simulated.fresh((2,), "float32")) is None


def test_an_older_cupy_is_refused(simulated, monkeypatch):
    x = simulated.fresh((2, 2), "float32")
    for version, refused in (("14.1.3", True), ("13.6.0", True), ("14.2.0", False), ("15.0.0a1", False)):
        monkeypatch.setattr(simulated.CUPY, "__version__", version)
        _load.refusal.cache_clear()
        reason = _launch.DEVICE.refusal(x)
        text = f"CuPy {version} is older than 14.2; pip install --upgrade cupy-cuda13x"
        assert (reason == Reason(Kind.MISSING, text)) == refused
        assert refused or reason is None
    _load.refusal.cache_clear()


def test_kernels_are_found_in_a_checkout_and_a_package(tmp_path, monkeypatch):
    assert _load.folder() == ROOT / "kernels"
    inside = tmp_path / "bnengine" / "kernels"
    monkeypatch.setattr(_load, "__file__", str(tmp_path / "bnengine" / "fused" / "cuda" / "_load.py"))
    found = _load.folder.__wrapped__
    with pytest.raises(BackendError) as caught:
        found()
    assert str(inside) in str(caught.value)
    assert str(tmp_path / "kernels") in str(caught.value)
    (inside / "cuda").mkdir(parents=True)
    (inside / "rules.h").touch()
    assert found() == inside


def test_a_source_is_one_text_with_each_of_our_headers_once():
    for path in sorted((ROOT / "kernels" / "cuda").glob("*.cu")):
        text = _load.source(path.name)
        assert '#include "' not in text
        assert text.count('#line 1 "rules.h"') == 1
        assert text.count('#line 1 "common.cuh"') == 1
        assert "#pragma once" not in text
        last = path.read_text(encoding="utf-8").splitlines()[-1]
        assert text.splitlines()[-1] == last


@pytest.mark.usefixtures("simulated")
def test_an_instance_is_compiled_once_for_each_device():
    expression = "bnengine::total<float, 4>"
    assert _load.function("pointwise.cu", expression, 0) is _load.function("pointwise.cu", expression, 0)


@pytest.mark.usefixtures("simulated")
def test_counters_of_blocks_are_shared_zero_and_grow():
    few = _load.arrivals(3, 0)
    assert _load.arrivals(1024, 0) is few
    many = _load.arrivals(5000, 0)
    assert many.size == 8192
    assert many.dtype == np.uint32
    assert not many.get().any()


def test_scalars_have_the_bytes_of_kernel_parameters(simulated):
    assert [a.dtype.name for a in (*_launch.indices(1), *_launch.reals(1), *_launch.flags(1))] == [
        "int64", "float64", "bool",
    ]  # fmt: skip
    kernel = _launch.kernel(simulated.fresh((1,), "f4"), "pointwise.cu", "total", "float", 4)
    assert kernel.__name__ == "bnengine::total<float, 4>"
    a = simulated.fresh((4,), "f4")
    kernel(a, a, a, np.int64(4), np.bool_(False))
    for wrong in ((a, a, a, 4, np.bool_(False)), (a, a, a, np.int32(4), np.bool_(False)), (a, a, a, np.int64(4))):
        with pytest.raises(TypeError):
            kernel(*wrong)
    with pytest.raises(TypeError, match="a pointer to float"):
        kernel(a, a, simulated.fresh((4,), "f8"), np.int64(4), np.bool_(False))


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("RawModule", ("code",), {"names": ()}),
        ("RawModule", ("code",), {"options": ["--std=c++17"]}),
        ("RawKernel.__call__", ((1,), (32, 8)), {}),
        ("RawKernel.__call__", ((1,), (32, 8), ()), {"stream": None}),
        ("empty", ((2,),), {"device": 0}),
        ("asarray", ([1],), {"device": 0}),
        ("ndarray.fill", (), {}),
    ],
)
def test_a_call_that_cupy_would_not_take_is_not_taken_here(name: str, args: Any, kwargs: Any, simulated):
    with pytest.raises(TypeError):
        simulated.bound(name, args, kwargs)
