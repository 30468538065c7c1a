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
from bnengine.lab.bench import Workload, measure, run
from bnengine.lab.bench.cases import AUTOTUNED, COMPILE, EAGER, GRAPH, Case, device_cases, device_kernels
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import copies_and_products, measure_on_device
from bnengine.lab.bench.ours import owner
from bnengine.lab.bench.report import Rates, device_rows
from bnengine.lab.bench.timing import Deadline
from bnengine.lab.bench.worker import Refused, Worker
from bnengine.ops import using
from tests.cuda_on_cpu.launch import need_compiler
from tests.support import require

TINY = Workload("6-8-8-3", (6, 8, 8, 3), 8, rows=64)
RATES = Rates(1e12, {"highest": 1e12, "tf32": 1e13, "bfloat16": None})
MOST_LAUNCHES = {"batch_norm": 4, "adam": 1, "softmax": 1, "dropout": 2, "check_step": 1, "gather": 1}
CASES = {case.name: case for case in device_kernels(8192, torch=False) if "24, 256" not in case.name}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated CuPy in CuPy's place, its backend as a machine."""
    need_compiler()
    from tests.fused import simulated_cupy

    simulated_cupy.installed(monkeypatch)
    monkeypatch.setattr("bnengine.lab.bench.ours.SCHEDULED", 128)
    monkeypatch.setattr("bnengine.lab.bench.ours.MOVES", 1)
    monkeypatch.setattr("bnengine.lab.bench.subjects.AGREED", 3)
    monkeypatch.setattr("bnengine.lab.bench.worker.QUEUED", 1)
    for name, value in {"QUICK_ROUND_S": 1e-3, "OP_ROUND_S": 1e-3, "QUICK_ROUNDS": 2, "QUICKLY_COPIED": 1 << 20,
                        "QUICKLY_MULTIPLIED": 64}.items():  # fmt: skip
        monkeypatch.setattr(measure, name, value)
    yield Machine(simulated_cupy.backend())
    simulated_cupy.forget()


def rows_of(device: Machine, case: Case, until: float = float("inf")) -> list[dict[str, Any]]:
    return device_rows(case, measure_on_device(case, device, 1.0, Deadline(until), quick=True), RATES)


def step(precision: str = "highest", torch: bool = False) -> Case:
    (case,) = device_cases(torch, "steps", [replace(TINY, precisions=(precision,))], ())
    return case


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_op_is_recorded_replayed_and_timed_by_events(device, case):
    require("ml_dtypes")
    (row,) = rows_of(device, case)
    assert row["void"] is None, row
    # As many launches as it takes where nothing is kept on the chip, or fewer.
    assert 1 <= row["launches"] <= MOST_LAUNCHES.get(case.given["op"], 9)
    # The simulated clock counts a millisecond for each launch.
    assert row["seconds"]["median"] == pytest.approx(1e-3 * row["launches"])
    assert row["share"] == pytest.approx(case.given["amount"] / row["seconds"]["median"] / 1e12)
    assert row["working_set"] > 0
    assert row["peer"] is row["ratio"] is None


def test_an_op_that_fails_or_takes_no_time_is_void(device):
    case = next(iter(CASES.values()))
    (row,) = rows_of(device, replace(case, given={**case.given, "dtype": "float64x"}))
    assert (row["void"][:12], row["seconds"]) == ("InputError: ", None)
    answers = {"bnengine": {"launches": 1, "working_set": 1}}
    (row,) = device_rows(case, measure.Measured({"bnengine": [0.0]}, answers=answers), RATES)
    assert row["void"] == "the device's clock counted no time"


@pytest.mark.parametrize("precision", ["highest", "bfloat16"])
def test_steps_run_op_by_op_replayed_and_as_a_graph_with_the_same_bits(device, monkeypatch, precision):
    if precision == "bfloat16":
        require("ml_dtypes")
        monkeypatch.setattr(device.backend.device, "compute_capability", "90", raising=False)
    rows = rows_of(device, step(precision))
    graph, replayed, eager = rows
    assert [row["name"] for row in rows] == ["bnengine graph", "bnengine replayed", "bnengine eager"]
    assert [(row["void"], row["variant"]) for row in rows] == [(None, precision)] * 3
    assert len({row["loss"]["loss"] for row in rows}) == 1
    assert 0 < rows[0]["loss"]["bound"] < 0.5
    assert graph["launches"] == replayed["launches"] == sum(graph["launches_by"].values()) > 10
    # Three layers: a product each forward, two each backward, but no gradient of the input.
    assert (graph["launches_by"]["cublasLt"], eager["launches"]) == (3 + 6 - 1, None)
    assert "CuPy" not in graph["launches_by"]
    assert all(row["host_seconds"]["median"] > 0 for row in rows)
    assert all(row["peak_bytes"] > TINY.rows * 6 * 2 for row in rows)
    assert graph["seconds"]["rounds"] == eager["ratio"]["rounds"] == 2
    assert graph["ratio"] is None
    assert graph["seconds_to_multiply"] == (graph["flops"] / 1e12 if precision == "highest" else None)


class Peer:
    """A worker of PyTorch's roles that answers by its role, and our own worker for the others."""

    losses: Any = None

    def __init__(self, role: str, machine: Machine) -> None:
        self.role, self.worker = role, Worker(role, machine)

    def close(self) -> None: ...

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        if not self.role.startswith("PyTorch"):
            answer = self.worker.ask(message, seconds)
            Peer.losses = answer.get("losses", Peer.losses)
            return answer
        if message["do"] == "prepare" and self.role == GRAPH:
            raise Refused("RuntimeError: cannot capture")
        if message["do"] == "run" and self.role == COMPILE:
            raise MemoryError("no room\nat all")
        if message["do"] == "host":
            raise Refused("no host")
        losses = [loss * (1.5 if self.role == AUTOTUNED else 1.0) for loss in Peer.losses]
        return {"losses": losses, "peak_bytes": 77, "version": "9.9", "seconds": 2.0}


def test_peers_have_ratios_or_a_reason_why_not(device, monkeypatch):
    monkeypatch.setattr(measure, "Worker", Peer)
    case = step(torch=True)
    ours, eager, graph, autotuned, compiled = rows_of(device, replace(case, roles=case.roles[2:]))
    assert (ours["void"], ours["ratio"], eager["peak_bytes"], eager["seconds"]["median"]) == (None, None, 77, 2.0)
    assert eager["ratio"]["median"] == pytest.approx(2.0 / ours["seconds"]["median"], rel=1.0)
    assert (eager["name"], eager["void"], eager["host_seconds"]) == (EAGER, "no host", None)
    assert (graph["void"], graph["loss"]) == ("RuntimeError: cannot capture", None)
    assert autotuned["void"].startswith("at step 1 the loss is ")
    assert autotuned["loss"]["difference"] > autotuned["loss"]["bound"]
    assert autotuned["seconds"] is autotuned["ratio"] is None
    assert compiled["void"] == "MemoryError: no room"


def test_what_takes_too_long_to_prepare_is_void(device, monkeypatch):
    monkeypatch.setattr(measure, "DEVICE_SHORTEST_S", 0.2)
    monkeypatch.setattr("bnengine.lab.bench.worker.peer", lambda *_given: time.sleep(600))
    assert [row["void"] for row in rows_of(device, step(), 0.0)] == ["TimeLimit: not ready within 0 s"] * 3


def test_a_step_that_cannot_be_replayed_is_void_and_op_by_op_is_compared_with(device):
    with using("reference"):
        graph, replayed, eager = rows_of(device, step())
    assert graph["void"].startswith("InputError: Step: graph=True, but ")
    assert replayed["void"].startswith("InputError: bench: steps run op by op: no fused version of ")
    assert (eager["name"], eager["void"], eager["ratio"]) == ("bnengine eager", None, None)


def test_a_whole_run_has_ops_and_steps_and_what_was_not_run(device, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "get_backend", lambda _name: device.backend)
    monkeypatch.setattr(run, "environment", lambda _machine, torch: {"measured_on": "GPU", "torch": torch})
    adam = [case for name, case in CASES.items() if name.startswith("Adam")]
    eager = replace(step(), roles=("bnengine eager",))
    monkeypatch.setattr(run, "device_cases", lambda *_given: [*adam, eager])
    path = tmp_path / "figures.json"
    found = run.bench("cupy", quick=True, path=str(path), peers=False)
    assert [(row["kind"], row["void"]) for row in found.rows] == [("kernel", None), ("step", None)]
    assert json.loads(path.read_text()) == found.to_json()
    assert all(target["reached"] is None for target in found.to_json()["targets"])  # smaller than the targets
    assert found.not_run == [("comparison with PyTorch", "it was left out")]


def test_copies_and_products_are_measured_in_every_precision(device):
    require("ml_dtypes")
    copied, multiplied = copies_and_products(device, Deadline(), quick=True)
    # A copy is one piece of work: a millisecond of the simulated clock. What is read and what is written both count.
    assert copied == {"bytes_per_second": pytest.approx(2 * (1 << 20) / 1e-3), "buffer": 1 << 20, "rounds": 2}
    assert (multiplied["n"], multiplied["errors"], multiplied["rounds"]) == (64, {}, 2)
    # One launch of the simulated clock, or none where a product takes none of its time.
    assert list(multiplied["flops"]) == ["highest", "tf32", "bfloat16"]
    assert all(rate in (pytest.approx(2 * 64**3 / 1e-3), float("inf")) for rate in multiplied["flops"].values())


def test_launches_are_told_by_whose_they_are():
    assert owner(SimpleNamespace(__name__="bnengine::moments<float, 4>")) == "bnengine"
    assert owner(Product(None, None)) == "cublasLt"
    assert owner(Multiplied("no cublasLt")) == "CuPy"
    assert owner(filled) == "CuPy"
