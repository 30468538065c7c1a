"""PyTorch and JAX as the benchmarks of a CPU run them: our training, our predictions, our results of single ops."""

from pathlib import Path
from typing import Any

import pytest

from bnengine.lab.bench.cpu import bench_cpu, inputs, own_subjects, run
from bnengine.lab.bench.cpu.cases import COMPILE, EAGER, JAX, OURS, REFERENCE, Case, described, kernels
from bnengine.lab.bench.cpu.measure import difference
from bnengine.lab.bench.workloads import Workload
from bnengine.ops import using
from tests.support import require

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)
ONE = Workload("12-16-16-5", (12, 16, 16, 5), 9, rows=9)


@pytest.fixture(params=[EAGER, JAX])
def peer(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """A peer's role, and what makes it."""
    if request.param == EAGER:
        require("torch")
        from bnengine.lab.bench.cpu import torch_subjects as module
    else:
        require("jax")
        from bnengine.lab.bench.cpu import jax_subjects as module
    return request.param, module.make


def answers(role: str, make: Any, kind: str, given: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Our references' answer, told as ours, and the peer's, whose timing runs once."""
    inputs.write(kind, given, folder)
    with using("reference"):
        mine = own_subjects.make(REFERENCE, kind, given, folder).answer
    if kind.startswith("step"):
        with using("reference"):
            ours = own_subjects.step(REFERENCE, inputs.workload_of(given), folder, compared=True)
        mine = ours.answer
    theirs = make(role, kind, given, folder)
    theirs.run(2)
    return mine, theirs.answer


@pytest.mark.parametrize("workload", [SMALL, DEEP], ids=lambda w: w.name)
def test_losses_are_ours(peer: Any, workload: Workload, tmp_path: Path) -> None:
    mine, theirs = answers(*peer, "step", described(workload), tmp_path)
    assert difference(mine, theirs, tmp_path) is None
    wrong = [*theirs["losses"][:19], 1.5 * theirs["losses"][19]]
    assert difference(mine, {"losses": wrong}, tmp_path) is not None
    assert theirs["version"]


@pytest.mark.parametrize("workload", [SMALL, DEEP], ids=lambda w: w.name)
def test_losses_of_many_steps_in_a_call_are_ours(workload: Workload, tmp_path: Path) -> None:
    require("jax")
    from bnengine.lab.bench.cpu import jax_subjects

    mine, theirs = answers(JAX, jax_subjects.make, "steps", described(workload), tmp_path)
    assert difference(mine, theirs, tmp_path) is None
    data, weights = inputs.data_of(tmp_path), inputs.weights_of(tmp_path)
    jax = jax_subjects.importlib.import_module("jax")
    one, many = (jax_subjects.JaxStep(jax, workload, data, weights, at_once=at_once) for at_once in (False, True))
    steps = workload.batches + 3  # over the end of an epoch
    for each in (one, many):
        each.run(steps)
    assert one.at == many.at == steps
    assert many.loss() == pytest.approx(one.loss(), rel=1e-3)


def test_predictions_are_ours(peer: Any, tmp_path: Path) -> None:
    mine, theirs = answers(*peer, "prediction", described(ONE), tmp_path)
    assert difference(mine, theirs, tmp_path) is None


@pytest.mark.parametrize("case", list(kernels(5000)), ids=lambda case: case.name)
def test_results_of_single_ops_are_ours(peer: Any, case: Case, tmp_path: Path) -> None:
    mine, theirs = answers(*peer, "kernel", case.given, tmp_path)
    assert difference(mine, theirs, tmp_path) is None


def test_everything_runs_in_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    require("jax")
    cases = [
        Case("step", "step", (OURS, REFERENCE, EAGER, COMPILE, JAX), described(SMALL)),
        Case("prediction", "prediction", (OURS, REFERENCE, EAGER, COMPILE, JAX), described(ONE)),
        *(case for case in kernels(5000) if case.given["op"] != "adam"),
    ]
    monkeypatch.setattr(run, "cases", lambda **_options: cases)
    for row in bench_cpu(quick=True, threads=1).to_json():
        assert set(row["void"]) <= {OURS}  # without native kernels the references are compared with
        assert all(ms > 0 for ms in row["peers_ms"].values())
