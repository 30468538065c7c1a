"""A run on the simulated device: kernels and steps by their own launchers, events and graphs. No figure counts."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bnengine.fused.cuda._launch import filled
from bnengine.fused.cuda.gemm import Multiplied, Product
from bnengine.lab.bench import Workload, run
from bnengine.lab.bench import device as measuring
from bnengine.lab.bench.cases import AUTOTUNED, COMPILE, GRAPH, Case, device_cases, device_kernels
from bnengine.lab.bench.device import measure_on_device
from bnengine.lab.bench.machine import Machine, Rates, copy_bandwidth, gemm_rates
from bnengine.lab.bench.ours import Ours, owner
from bnengine.lab.bench.processes import Local, Refused
from bnengine.lab.bench.timing import Deadline
from bnengine.ops import using
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
    monkeypatch.setattr("bnengine.lab.bench.device.QUICK_ROUND_S", 1e-3)
    monkeypatch.setattr("bnengine.lab.bench.device.OP_ROUND_S", 1e-3)
    monkeypatch.setattr("bnengine.lab.bench.device.QUICK_ROUNDS", 2)
    monkeypatch.setattr("bnengine.lab.bench.ours.MOVES", 1)
    monkeypatch.setattr("bnengine.lab.bench.machine.QUICKLY_COPIED", 1 << 20)
    monkeypatch.setattr("bnengine.lab.bench.machine.QUICKLY_MULTIPLIED", 64)
    yield Machine(simulated_cupy.backend())
    simulated_cupy.forget()


LAUNCHES = {"batch norm": 4, "Adam": 1, "softmax": 1, "dropout": 2, "check_step": 1, "gather": 1}


def rows_of(device: Machine, case: Case) -> list[dict[str, Any]]:
    return measure_on_device(case, device, RATES, 1.0, Deadline(None), quick=True)


def step(precision: str = "highest") -> Case:
    workload = Workload(TINY.name, TINY.widths, TINY.batch, (precision,), TINY.rows)
    (case,) = device_cases("graph", False, "steps", [workload], ())
    return case


def test_every_op_is_recorded_replayed_and_timed_by_events(device):
    require("ml_dtypes")
    for case in device_kernels(8192, torch=False):
        (row,) = rows_of(device, case)
        assert row["void"] is None, row
        most = [n for name, n in LAUNCHES.items() if case.name.startswith(name)]
        if most and case.given["shape"][-1] != 256:  # as many as it takes where nothing is kept on the chip, or fewer
            assert 1 <= row["launches"] <= most[0]
        # The simulated clock counts a millisecond for each launch.
        assert row["seconds"]["median"] == pytest.approx(1e-3 * row["launches"])
        assert row["share"] == pytest.approx(case.given["amount"] / row["seconds"]["median"] / 1e12)
        assert row["working_set"] > 0
        assert row["peer"] is row["ratio"] is None


def test_an_op_that_fails_is_void(device):
    case = next(device_kernels(8192, torch=False))
    (row,) = rows_of(device, replace(case, given={**case.given, "dtype": "float64x"}))
    assert row["void"].startswith("TypeError: ")
    assert row["seconds"] is None


def test_steps_run_op_by_op_replayed_and_as_a_graph_with_the_same_bits(device):
    rows = rows_of(device, step())
    graph, replayed, eager = rows
    assert [row["name"] for row in rows] == ["bnengine graph", "bnengine replayed", "bnengine eager"]
    assert [row["void"] for row in rows] == [None] * 3
    assert len({row["loss"]["loss"] for row in rows}) == 1
    assert graph["launches"] == replayed["launches"] == sum(graph["launches_by"].values()) > 10
    assert eager["launches"] is None
    # Three layers: a product each forward, two each backward, but no gradient of the input.
    assert graph["launches_by"]["cublasLt"] == 3 + 6 - 1
    assert "CuPy" not in graph["launches_by"]
    assert all(row["host_seconds"]["median"] > 0 for row in rows)
    assert all(row["peak_bytes"] > TINY.rows * 6 * 4 for row in rows)
    assert graph["seconds"]["rounds"] == eager["ratio"]["rounds"] == 2
    assert graph["ratio"] is None
    assert graph["seconds_to_multiply"] == graph["flops"] / 1e12


def test_steps_run_in_less_precision(device, monkeypatch):
    require("ml_dtypes")
    monkeypatch.setattr(device.backend.device, "compute_capability", "90", raising=False)
    rows = rows_of(device, step("bfloat16"))
    assert rows[0]["seconds_to_multiply"] is None
    assert [(row["void"], row["variant"]) for row in rows] == [(None, "bfloat16")] * 3
    assert len({row["loss"]["loss"] for row in rows}) == 1
    assert 0 < rows[0]["loss"]["bound"] < 0.5


class Peer:
    """A worker of PyTorch's roles that answers by its role, and our own worker for the others."""

    def __init__(self, role: str, machine: Machine) -> None:
        self.role, self.worker = role, Local(role, machine)

    def close(self) -> None: ...

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        if not self.role.startswith("PyTorch"):
            LOSSES[:] = [self.worker.ask(message, seconds)] if message["do"] == "prepare" else LOSSES
            return LOSSES[0] if message["do"] == "prepare" else self.worker.ask(message, seconds)
        if message["do"] == "prepare" and self.role == GRAPH:
            raise Refused("RuntimeError: cannot capture")
        if message["do"] == "run" and self.role == COMPILE:
            raise MemoryError("no room\nat all")
        losses = [loss * (1.5 if self.role == AUTOTUNED else 1.0) for loss in LOSSES[0]["losses"]]
        return {"losses": losses, "peak_bytes": 77, "version": "9.9", "seconds": 2.0}


LOSSES: list[dict[str, Any]] = []


def test_peers_have_ratios_or_a_reason_why_not(device, monkeypatch):
    monkeypatch.setattr(measuring, "Local", Peer)
    monkeypatch.setattr(measuring, "_host", lambda *_given: None)
    (case,) = device_cases("eager", True, "steps", [TINY], ())
    ours, eager, graph, autotuned, compiled = rows_of(device, case)
    assert (eager["void"], eager["peak_bytes"], eager["seconds"]["median"]) == (None, 77, 2.0)
    assert eager["ratio"]["median"] == pytest.approx(2.0 / ours["seconds"]["median"], rel=1.0)
    assert (graph["void"], graph["loss"]) == ("RuntimeError: cannot capture", None)
    assert autotuned["void"].startswith("at step 1 the loss is ")
    assert autotuned["loss"]["difference"] > autotuned["loss"]["bound"]
    assert autotuned["seconds"] is autotuned["ratio"] is None
    assert compiled["void"] == "MemoryError: no room"
    assert ours["void"] is None


def test_what_takes_too_long_to_prepare_is_void(device, monkeypatch):
    monkeypatch.setattr(measuring, "SHORTEST_S", 1.0)
    monkeypatch.setattr("bnengine.lab.bench.ours.make", lambda *_given: time.sleep(600))
    rows = measure_on_device(step(), device, RATES, 1.0, Deadline(0.0), quick=True)
    assert [row["void"] for row in rows] == ["TimeLimit: not ready within 1 s"] * 3


def test_a_step_that_cannot_be_replayed_is_void_and_op_by_op_is_compared_with(device):
    with using("reference"):
        graph, replayed, eager = rows_of(device, step())
    assert graph["void"].startswith("InputError: Step: graph=True, but ")
    assert replayed["void"].startswith("InputError: bench: steps run op by op: no fused version of ")
    assert (eager["name"], eager["void"], eager["ratio"]) == ("bnengine eager", None, None)


def test_a_graph_is_one_launch_a_step(device):
    from tests.fused import simulated_streams as streams

    ours = Ours(device, TINY, TINY.data(), mode="graph")
    ours.prepare()
    before = streams.STATE.launched
    ours.run(2 * TINY.batches)
    assert streams.STATE.launched - before == 2 * TINY.batches
    assert [mode.how for mode in ours.step.modes()] == ["graph"]


def test_a_whole_run_has_ops_and_steps_and_what_was_not_run(device, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "get_backend", lambda _name: device.backend)
    monkeypatch.setattr(run, "environment", lambda machine, torch: {"measured_on": machine.label, "torch": torch})
    adam = [
        case for case in device_cases("graph", False, None, [TINY], (), 8192) if case.given.get("op") in (None, "adam")
    ]
    monkeypatch.setattr(run, "device_cases", lambda *_given: adam)
    path = tmp_path / "figures.json"
    found = run.bench("cupy", quick=True, path=str(path), peers=False)
    assert [row["kind"] for row in found.rows] == ["kernel", "step", "step", "step"]
    assert [row["void"] for row in found.rows] == [None] * 4
    assert json.loads(path.read_text()) == found.to_json()
    assert all(target["reached"] is None for target in found.to_json()["targets"])  # smaller than the targets
    assert found.not_run == [("comparison with PyTorch", "it was left out")]


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
