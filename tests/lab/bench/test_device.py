"""A run on the simulated device: kernels and steps by their own launchers, events and graphs. No figure counts."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bnengine.fused.cuda._launch import filled
from bnengine.fused.cuda.gemm import Multiplied, Product
from bnengine.lab.bench import Workload, run
from bnengine.lab.bench.kernel_rows import row_of
from bnengine.lab.bench.kernels import kernels
from bnengine.lab.bench.machine import Machine, Rates, copy_bandwidth, gemm_rates
from bnengine.lab.bench.ours import Ours, owner
from bnengine.lab.bench.step_rows import rows_of
from bnengine.lab.bench.timing import Deadline
from tests.cuda_on_cpu.launch import need_compiler
from tests.support import require

TINY = Workload("6-8-8-3", (6, 8, 8, 3), 8, rows=64)
RATES = Rates(1e12, {"highest": 1e12, "tf32": 1e13, "bfloat16": None})


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated CuPy in CuPy's place, its backend as a machine."""
    need_compiler()
    from tests.fused import simulated_cupy

    simulated_cupy.installed(monkeypatch)
    monkeypatch.setattr("bnengine.lab.bench.ours.SCHEDULED", 512)
    monkeypatch.setattr("bnengine.lab.bench.step_rows.QUICK_ROUND", 1e-3)
    monkeypatch.setattr("bnengine.lab.bench.step_rows.QUICK_ROUNDS", 2)
    monkeypatch.setattr("bnengine.lab.bench.step_rows.MOVES", 1)
    monkeypatch.setattr("bnengine.lab.bench.machine.QUICKLY_COPIED", 1 << 20)
    monkeypatch.setattr("bnengine.lab.bench.machine.QUICKLY_MULTIPLIED", 64)
    yield Machine(simulated_cupy.backend())
    simulated_cupy.forget()


LAUNCHES = {"batch norm": 4, "Adam": 1, "softmax": 1, "dropout": 2, "check_step": 1, "gather": 1}


def test_every_kernel_is_recorded_replayed_and_timed_by_events(device):
    require("ml_dtypes")
    for kernel in kernels(8192):
        row = row_of(device, kernel, None, RATES, Deadline(0.0), quick=True)
        assert row["void"] is None, row
        told = [n for name, n in LAUNCHES.items() if kernel.what.startswith(name)]
        if told and kernel.shape[-1] != 256:  # as many as it takes where nothing is kept on the chip, or fewer
            assert 1 <= row["launches"] <= told[0]
        # The simulated clock counts a millisecond for each launch.
        assert row["seconds"]["median"] == pytest.approx(1e-3 * row["launches"])
        assert row["share"] == pytest.approx(kernel.amount / row["seconds"]["median"] / 1e12)
        assert row["working_set"] > 0
        assert row["peer"] is row["ratio"] is None


def test_an_op_without_a_fused_version_is_void(device):
    kernel = kernels(8192)[0]
    row = row_of(device, kernel._replace(variant="float64x"), None, RATES, Deadline(0.0))
    assert row["void"].startswith("TypeError: ")
    assert row["seconds"] is None


def test_steps_run_op_by_op_replayed_and_as_a_graph_with_the_same_bits(device):
    rows = rows_of(device, TINY, "highest", None, RATES, Deadline(None), quick=True)
    graph, replayed, eager = rows
    assert [row["name"] for row in rows] == ["bnengine graph", "bnengine replayed", "bnengine eager"]
    assert [row["void"] for row in rows] == [None] * 3
    assert len({row["loss"]["loss"] for row in rows}) == 1
    assert graph["launches"] == replayed["launches"] == sum(graph["launches_by"].values()) > 10
    assert eager["launches"] is None
    # Three layers: a product each forward, two each back, but no gradient of the input.
    assert graph["launches_by"]["cublasLt"] == 3 + 6 - 1
    assert "CuPy" not in graph["launches_by"]
    assert all(row["host_seconds"]["median"] > 0 for row in rows)
    assert all(row["peak_bytes"] > TINY.rows * 6 * 4 for row in rows)
    assert graph["ratio"] is None
    assert eager["ratio"] is not None


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_steps_run_in_less_precision(device, monkeypatch, precision):
    require("ml_dtypes")
    monkeypatch.setattr(device.backend.device, "compute_capability", "90", raising=False)
    rows = rows_of(device, TINY, precision, None, RATES, Deadline(None), quick=True)
    assert rows[0]["seconds_to_multiply"] == (rows[0]["flops"] / 1e13 if precision == "tf32" else None)
    assert [(row["void"], row["variant"]) for row in rows] == [(None, precision)] * 3
    assert len({row["loss"]["loss"] for row in rows}) == 1
    assert 0 < rows[0]["loss"]["bound"] < 0.5


def test_a_graph_is_one_launch_a_step(device):
    from tests.fused import simulated_streams as streams

    ours = Ours(device, TINY, TINY.data(), mode="graph")
    ours.prepare()
    before = streams.STATE.launched
    ours.run(2 * TINY.batches)
    assert streams.STATE.launched - before == 2 * TINY.batches
    assert [mode.how for mode in ours.step.modes()] == ["graph"]


def test_a_whole_run_has_kernels_steps_and_no_peers(device, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "get_backend", lambda _name: device.backend)
    monkeypatch.setattr(run, "environment", lambda machine, packages: {"measured_on": machine.label, "peers": packages})
    monkeypatch.setattr(run, "kernels", lambda scale: [k for k in kernels(scale) if k.what.startswith("Adam")])
    path = tmp_path / "figures.json"
    found = run.bench("cupy", workloads=[TINY], quick=True, scale=8192, path=str(path), say=None)
    assert [row["kind"] for row in found.rows] == ["kernel", "step", "step", "step"]
    assert [row["void"] for row in found.rows] == [None] * 4
    assert path.exists()
    assert all(target["reached"] is None for target in found.to_json()["targets"])  # smaller than what is aimed at
    if found.not_run:
        assert [left.what for left in found.not_run] == ["PyTorch beside ours"]


def test_a_copy_counts_what_is_read_and_what_is_written(device):
    # A copy is one piece of work: a millisecond of the simulated clock.
    assert copy_bandwidth(device, quick=True)["bytes_per_second"] == pytest.approx(2 * (1 << 20) / 1e-3)


def test_products_are_measured_in_every_precision(device):
    require("ml_dtypes")
    found = gemm_rates(device, quick=True)
    assert (found["n"], found["errors"]) == (64, {})
    # One launch of the simulated clock, or none where a product takes none of its time.
    assert list(found["flops"]) == ["highest", "tf32", "bfloat16"]
    assert all(rate in (2 * 64**3 / 1e-3, float("inf")) for rate in found["flops"].values())


def test_launches_are_told_by_whose_they_are():
    assert owner(SimpleNamespace(__name__="bnengine::moments<float, 4>")) == "bnengine"
    assert owner(Product(None, None)) == "cublasLt"
    assert owner(Multiplied("no cublasLt")) == "CuPy"
    assert owner(filled) == "CuPy"
    assert owner(SimpleNamespace(__name__="a native kernel")) == "bnengine"
