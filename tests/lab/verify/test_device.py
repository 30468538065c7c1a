"""The CUDA kernels under g++, by their own launchers, before the certificate: what it will do on a GPU."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bnengine.arrays.backend import BackendReport, get_backend
from bnengine.lab.verify import layers, operations
from bnengine.lab.verify.certificate import Ledger, environment
from bnengine.lab.verify.layers import verify_layers
from bnengine.lab.verify.operations import verify_ops
from bnengine.lab.verify.steps import verify_steps
from bnengine.lab.verify.trainings import trainings
from bnengine.lab.verify.variants import Variant, fused_variants
from bnengine.ops import REGISTRY
from tests.cuda_on_cpu.launch import need_compiler

CASES = tuple(layers.cases())


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Variant]]:
    """The variants with fused versions on the simulated device."""
    need_compiler()
    from tests.fused import simulated_cupy

    simulated_cupy.installed(monkeypatch)
    yield fused_variants(simulated_cupy.backend())[0]
    simulated_cupy.forget()


def test_ops_layers_and_trainings_agree_on_the_simulated_device(monkeypatch, fused):
    # The walk over contracts compares every op; here some of each kind, to see that the certificate takes a device.
    assert [variant.label for variant in fused] == ["cupy float32 fused", "cupy float64 fused"]
    ledger, numpy = Ledger(), Variant(get_backend("numpy"), "float64")
    monkeypatch.setattr(operations, "REGISTRY", {name: REGISTRY[name] for name in ("affine", "normalize_backward")})
    monkeypatch.setattr(layers, "cases", lambda: (case for case in CASES if case.label.startswith("Residual to")))
    verify_ops(ledger, numpy, fused, 0)
    verify_layers(ledger, numpy, fused, 0, quick=True)
    verify_steps(ledger, numpy.backend, fused, trainings(quick=True)[1], 0)
    assert [row for row in ledger.rows() if not row.ok] == []
    kinds = {(row.what.split()[0], row.a) for row in ledger.rows()}
    assert kinds >= {(kind, variant.label) for kind in ("op", "layer", "training") for variant in fused}


def test_the_environment_names_device_driver_and_runtime():
    runtime = SimpleNamespace(driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 12090)
    device = SimpleNamespace(id=1, compute_capability="90")
    backend: Any = SimpleNamespace(
        on_gpu=True, xp=SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)), device=device
    )
    report = BackendReport("cupy", "14.2.0", "NVIDIA H200 (GPU 0 of 2)", True, "it works")
    found = environment([backend], [report])
    assert found["device"] == "NVIDIA H200 (GPU 0 of 2), number 1, compute capability 90"
    assert (found["driver"], found["runtime"]) == (13000, 12090)
    assert found["backends"] == [vars(report)]
