"""PyTorch and JAX as the benchmarks of a CPU run them: our training, our predictions, our results of single ops."""

import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import Workload, bench, run
from bnengine.lab.bench.cases import COMPILE, EAGER, JAX, OURS, REFERENCE, Case, kernels
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import difference
from bnengine.lab.bench.ours import OurPeer
from bnengine.lab.bench.worker import Worker
from bnengine.ops import using
from tests.support import require

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)
ONE = Workload("12-16-16-5", (12, 16, 16, 5), 9, rows=9)
CASES = [
    *(Case(f"step {each.name}", "step", (OURS,), each.to_json()) for each in (SMALL, DEEP)),
    *(Case(f"steps {each.name}", "steps", (OURS,), each.to_json()) for each in (SMALL, DEEP)),
    Case("prediction", "prediction", (OURS,), ONE.to_json()),
    *kernels(5000),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("role", [EAGER, JAX])
def test_results_are_ours(role: str, case: Case) -> None:
    require("torch" if role == EAGER else "jax")
    machine = Machine(get_backend("numpy"))
    with using("reference"):
        mine = OurPeer(REFERENCE, machine).subject(case.kind, case.given, bounded=True).answer
    worker = Worker(role, machine)
    theirs = worker.answer({"do": "prepare", "kind": case.kind, "given": case.given, "bounded": False})
    assert worker.answer({"do": "run", "seconds": 1e-3})["seconds"] > 0
    assert difference(case, mine, theirs) is None
    assert theirs["version"]
    if case.kind == "step":
        wrong = [*theirs["losses"][:19], 1.5 * theirs["losses"][19]]
        assert difference(case, mine, {"losses": wrong}) is not None


def test_many_steps_in_a_call_are_those_of_single_calls() -> None:
    require("jax")
    from bnengine.lab.bench.jax_peer import JaxStep

    one, many = (JaxStep(SMALL, SMALL.data(), at_once) for at_once in (False, True))
    for each in (one, many):
        each.run(SMALL.batches + 3)  # over the end of an epoch
    assert one.at == many.at == SMALL.batches + 3
    assert many.loss() == pytest.approx(one.loss(), rel=1e-3)


def test_everything_runs_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    require("jax")
    roles = (OURS, REFERENCE, EAGER, COMPILE, JAX)
    cases = [Case("step", "step", roles, SMALL.to_json()), Case("prediction", "prediction", roles, ONE.to_json())]
    cases += list(kernels(5000))[::7]  # batch norm and softmax cross-entropy
    monkeypatch.setattr(run, "cpu_cases", lambda **_options: cases)
    for row in bench("numpy", quick=True, threads=1).to_json():
        assert set(row["void"]) <= {OURS}  # without native kernels the references are compared with
        assert all(ms > 0 for ms in row["peers_ms"].values())
