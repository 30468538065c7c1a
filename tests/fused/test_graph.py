"""A step as one graph: the bytes of op by op, nothing changed by capture, and the reason where there is no graph."""

from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.errors import BackendError, InputError
from bnengine.fused.cuda import cublaslt_api, replayer
from bnengine.runtime.plan import CannotReplay, Launch, Plan
from bnengine.training.replaying import described
from bnengine.training.resident import Resident
from tests.fused import real_cupy
from tests.fused.training import epochs, make, snapshot, source
from tests.support import give_versions, missing

WAYS = {"op by op": {"replay": False}, "launches": {"graph": False}, "graph": {"graph": True}}


def compared(device: Any, steps: int, every: int, *names: str, small: bool = False) -> dict[str, Any]:
    """Train in each way, from data on the device; all bits are equal all the way."""
    made = {name: make(device.backend(), steps, small=small, **WAYS[name]) for name in names or WAYS}
    runs = []
    for step in made.values():
        rows = source(nan=7)
        held = Resident(rows, step.inputs)
        runs.append(epochs(step, held, steps))
    for done in zip(*runs, strict=True):
        if done[0] % every == 0 or done[0] < 5:
            first, *others = map(snapshot, made.values())
            for name, other in zip(list(made)[1:], others, strict=True):
                assert first == other, f"{name}, step {done[0]}"
    return made


def test_steps_have_the_same_bits_in_every_mode(simulated):
    made = compared(simulated, 7, 4)
    for name in ("launches", "graph"):
        modes = made[name].modes()
        assert [mode.how for mode in modes] == [name, name]  # one for the full groups, one for the ragged last
        assert [mode.why for mode in modes] == ["", ""]
        assert all(mode.launches > 25 for mode in modes)
    assert not made["op by op"].plans
    report = made["graph"].report()
    assert (report.steps, report.skipped) == (3, 4)  # the row that is not a number comes once an epoch, of two steps


@pytest.mark.slow
def test_a_thousand_graph_steps_have_the_bits_of_op_by_op(simulated):
    made = compared(simulated, 1000, 100, "op by op", "graph", small=True)
    assert [mode.how for mode in made["graph"].modes()] == ["graph", "graph"]
    assert made["graph"].report().steps == 500


@pytest.mark.gpu
def test_a_thousand_steps_are_equal_on_a_gpu():
    """The GPU's own part of the test above."""
    try:
        get_backend("cupy")
    except BackendError as error:
        missing("cupy", str(error))
    compared(real_cupy, 1000, 1)


def test_capture_changes_nothing_and_runs_nothing(simulated):
    step = make(simulated.backend(), 5, graph=False)
    rows = source()
    held = Resident(rows, step.inputs)
    list(epochs(step, held, 4))
    before, launched = snapshot(step), len(simulated.STATE.launches)
    for plan in step.plans.values():
        graph = replayer(plan)
        assert callable(graph)
    assert snapshot(step) == before
    captured = sum(len(plan.launches) for plan in step.plans.values()) - products(step)
    assert len(simulated.STATE.launches) == launched + captured  # captured, and not run
    assert simulated.streams.STATE.launched == 0


def products(step: Any) -> int:
    return sum(type(launch.kernel).__name__ == "Product" for p in step.plans.values() for launch in p.launches)


def test_a_steady_step_is_one_launch_of_a_graph(simulated, monkeypatch):
    step = make(simulated.backend(), 40, graph=True)
    rows = source()
    held = Resident(rows, step.inputs)
    run = epochs(step, held, 40)
    for _ in range(6):
        next(run)
    added = []
    monkeypatch.setattr(simulated.streams.Stream, "add", lambda _stream, work: added.append(work) or work())
    before = simulated.streams.STATE.launched
    next(run), next(run)
    assert simulated.streams.STATE.launched == before + 2
    # the graphs, and the order, the divisors and the cursor of the epoch that begins between them
    assert len(added) == 2 + 3


def test_an_op_without_a_kernel_makes_the_step_run_op_by_op(simulated, monkeypatch):
    give_versions(monkeypatch, {"adam": None})
    step = make(simulated.backend(), 8, mode="auto")
    rows = source()
    held = Resident(rows, step.inputs)
    list(epochs(step, held, 6))
    assert {mode.how for mode in step.modes()} == {"op by op"}
    (line,) = set(map(described, step.modes()))
    assert line == "steps run op by op: no fused version of adam (no fused version exists for cupy)"
    strict = make(simulated.backend(), 8, mode="auto", graph=True)
    held = Resident(rows, strict.inputs)
    with pytest.raises(InputError, match=r"^Step: graph=True, but no fused version of adam .*Take graph='auto'\.$"):
        list(epochs(strict, held, 2))


def test_a_product_of_cupy_is_named_and_replayed_by_launches(simulated, monkeypatch):
    monkeypatch.setattr(cublaslt_api, "load", lambda: cublaslt_api.Refusal("libcublasLt was not found"))
    step, eager = make(simulated.backend(), 8), make(simulated.backend(), 8, replay=False)
    rows = source()
    for one in (step, eager):
        held = Resident(rows, one.inputs)
        list(epochs(one, held, 6))
    assert snapshot(step) == snapshot(eager)
    (line,) = set(map(described, step.modes()))
    assert line.startswith("steps run launch by launch: cupy.matmul (")
    assert "libcublasLt was not found" in line
    assert line.endswith("cannot be captured into a graph")


@pytest.mark.parametrize(
    ("message", "why"),
    [("cudaErrorStreamCaptureUnsupported: not here\nand more", "cudaErrorStreamCaptureUnsupported: not here"),
     ("", "RuntimeError")],
)  # fmt: skip
def test_a_failed_capture_falls_back_to_launches_and_says_so(message, why, simulated, monkeypatch):
    def failing(_stream: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(simulated.streams.Stream, "begin_capture", failing)
    monkeypatch.setattr(simulated.streams.Stream, "end_capture", lambda _stream: None)
    step = make(simulated.backend(), 8)
    rows = source()
    held = Resident(rows, step.inputs)
    list(epochs(step, held, 6))
    assert {mode.why for mode in step.modes()} == {f"capture failed: {why}"}


def test_a_launch_that_fails_under_capture_gives_its_reason(simulated, monkeypatch):
    """CUDA then refuses to end the capture, too, in words that name no cause."""

    def launched(*_arguments: Any) -> None:
        raise RuntimeError("cudaErrorInvalidValue: of this launch")

    def ended(_stream: Any) -> None:
        raise RuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")

    monkeypatch.setattr(simulated.streams.Stream, "end_capture", ended)
    with pytest.raises(CannotReplay, match=r"^capture failed: cudaErrorInvalidValue: of this launch$"):
        replayer(plan_of_one(launched))


def plan_of_one(kernel: Any) -> Plan:
    plan = Plan()
    plan.launches = [Launch(kernel)]
    return plan


@pytest.mark.parametrize(
    ("options", "why"), [({"replay": False}, "replay=False runs op by op"), ({}, "the backend numpy has no graphs")]
)
def test_a_graph_that_cannot_be_is_refused_at_once(options, why):
    with pytest.raises(InputError, match=f"^Step: graph=True, but {why}\\. Take graph='auto'\\.$"):
        make("numpy", 1, mode="auto", graph=True, **options)
    with pytest.raises(InputError, match=r"^Step: graph must be 'auto', True or False, got 'yes'\.$"):
        make("numpy", 1, mode="auto", graph="yes")


def test_no_step_reads_beyond_the_data(simulated):
    step = make(simulated.backend(), 5)
    rows = source()
    held = Resident(rows, step.inputs)
    with pytest.raises(InputError, match=r"^Step: 1 steps of an epoch of 0 steps, 0 of them done cannot run"):
        step.next(held)
    held.start(np.arange(45), [[slice(0, 40)], [slice(40, 45)]], 1)
    step.next(held)
    with pytest.raises(InputError, match=r"^Step: 1 steps of an epoch of 2 steps, 2 of them done cannot run"):
        step.next(held)
