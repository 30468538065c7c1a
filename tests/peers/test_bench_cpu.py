"""PyTorch and JAX as the benchmarks of a CPU run them: our training, our predictions, our results of single ops."""

from typing import Any

import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import Workload, bench, ours, run
from bnengine.lab.bench.cases import COMPILE, EAGER, JAX, OURS, REFERENCE, Case, kernels
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import difference
from bnengine.lab.bench.worker import Worker
from bnengine.ops import using
from tests.support import require

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)
ONE = Workload("12-16-16-5", (12, 16, 16, 5), 9, rows=9)


@pytest.fixture(params=[EAGER, JAX])
def peer(request: pytest.FixtureRequest) -> str:
    require("torch" if request.param == EAGER else "jax")
    return str(request.param)


def answers(role: str, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our references' answer and the peer's, whose timing runs once."""
    machine = Machine(get_backend("numpy"))
    with using("reference"):
        mine = ours.make(REFERENCE, case.kind, case.given, machine, bounded=True).answer
    worker = Worker(role, machine)
    message = {"do": "prepare", "kind": case.kind, "given": case.given, "bounded": False}
    theirs = worker.answer(message)
    assert worker.answer({"do": "run", "seconds": 1e-3})["seconds"] > 0
    return mine, theirs


@pytest.mark.parametrize("workload", [SMALL, DEEP], ids=lambda w: w.name)
def test_losses_are_ours(peer: str, workload: Workload) -> None:
    case = Case("step", "step", (OURS,), workload.to_json())
    mine, theirs = answers(peer, case)
    assert difference(case, mine, theirs) is None
    wrong = [*theirs["losses"][:19], 1.5 * theirs["losses"][19]]
    assert difference(case, mine, {"losses": wrong}) is not None
    assert theirs["version"]


@pytest.mark.parametrize("workload", [SMALL, DEEP], ids=lambda w: w.name)
def test_losses_of_many_steps_in_a_call_are_ours(workload: Workload) -> None:
    require("jax")
    from bnengine.lab.bench.jax_peer import JaxStep

    case = Case("steps", "steps", (OURS,), workload.to_json())
    assert difference(case, *answers(JAX, case)) is None
    data, weights = workload.data(), workload.weights()
    one, many = (JaxStep(workload, data, weights, at_once=at_once) for at_once in (False, True))
    steps = workload.batches + 3  # over the end of an epoch
    for each in (one, many):
        each.run(steps)
    assert one.at == many.at == steps
    assert many.loss() == pytest.approx(one.loss(), rel=1e-3)


def test_predictions_are_ours(peer: str) -> None:
    case = Case("prediction", "prediction", (OURS,), ONE.to_json())
    assert difference(case, *answers(peer, case)) is None


@pytest.mark.parametrize("case", list(kernels(5000)), ids=lambda case: case.name)
def test_results_of_single_ops_are_ours(peer: str, case: Case) -> None:
    assert difference(case, *answers(peer, case)) is None


def test_everything_runs_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    require("jax")
    cases = [
        Case("step", "step", (OURS, REFERENCE, EAGER, COMPILE, JAX), SMALL.to_json()),
        Case("prediction", "prediction", (OURS, REFERENCE, EAGER, COMPILE, JAX), ONE.to_json()),
        *(case for case in kernels(5000) if case.given["op"] != "adam"),
    ]
    monkeypatch.setattr(run, "cpu_cases", lambda **_options: cases)
    for row in bench("numpy", quick=True, threads=1).to_json():
        assert set(row["void"]) <= {OURS}  # without native kernels the references are compared with
        assert all(ms > 0 for ms in row["peers_ms"].values())
