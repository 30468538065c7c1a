"""PyTorch as the benchmarks run it: the same training as ours, the same results of single ops, on the CPU."""

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import Workload, run
from bnengine.lab.bench.agreement import compare, disagreement, losses
from bnengine.lab.bench.cases import COMPILE, EAGER, Case, device_kernels
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import difference
from bnengine.lab.bench.ours import Ours, reference
from bnengine.lab.bench.subjects import op_of, sampled
from bnengine.lab.bench.worker import Worker
from bnengine.network.precision import PrecisionName
from bnengine.runtime.memory import Memory
from tests.support import missing, require

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("torch")]
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)


@pytest.fixture
def machine() -> Machine:
    return Machine(get_backend("numpy"))


@pytest.mark.parametrize(
    ("workload", "precision"),
    [(SMALL, "highest"), (DEEP, "highest"), (SMALL, "bfloat16")],
    ids=lambda w: getattr(w, "name", w),
)
def test_twenty_losses_agree_from_the_same_weights(
    machine: Machine, workload: Workload, precision: PrecisionName
) -> None:
    from bnengine.lab.bench.torch_peer import TorchStep

    if precision == "bfloat16":
        require("ml_dtypes")
    data = workload.data()
    ours = Ours(machine, workload, data, precision=precision)
    base, allowed = reference(ours, precision)
    theirs = TorchStep(workload, data, ours.weights, on_gpu=False, precision=precision)
    theirs.prepare()
    found = compare(base, losses(theirs), allowed)
    assert found.void is None
    assert losses(theirs) == losses(theirs)  # it begins anew, optimizer and statistics included


def test_a_peer_with_another_optimizer_does_not_agree(machine: Machine) -> None:
    from bnengine.lab.bench.torch_peer import TorchStep

    data = SMALL.data()
    ours = Ours(machine, SMALL, data)
    base, allowed = reference(ours, "highest")
    theirs = TorchStep(SMALL, data, ours.weights, on_gpu=False)
    for group in theirs.optimizer.param_groups:
        group["betas"] = (0.8, 0.999)
    assert compare(base, losses(theirs), allowed).void is not None


def test_data_go_on_in_the_next_epochs_order() -> None:
    from bnengine.lab.bench.torch_peer import TorchStep

    data = SMALL.data()
    theirs = TorchStep(SMALL, data, Ours(Machine(get_backend("numpy")), SMALL, data).weights, on_gpu=False)
    theirs.start()
    theirs.run(SMALL.batches)
    np.testing.assert_array_equal(theirs.order.numpy(), data.orders[0])
    theirs.run(1)
    np.testing.assert_array_equal(theirs.order.numpy(), data.orders[1])


def test_a_step_in_a_graph_moves_its_place_in_the_data(machine: Machine) -> None:
    from bnengine.lab.bench.torch_peer import TorchStep

    data = SMALL.data()
    ours = Ours(machine, SMALL, data)
    base, allowed = reference(ours, "highest")
    theirs = TorchStep(SMALL, data, ours.weights, on_gpu=False, mode="CUDA graph")
    theirs.graph = SimpleNamespace(replay=lambda: setattr(theirs, "value", theirs._whole_step()))  # as a replay would
    assert compare(base, losses(theirs), allowed).void is None
    ours.run(SMALL.batches)
    theirs.run(SMALL.batches)  # beyond the epoch's end
    assert theirs.loss() == pytest.approx(ours.loss(), rel=1e-3)


@pytest.mark.slow
def test_a_compiled_step_agrees(machine: Machine) -> None:
    if shutil.which("g++") is None:
        missing("g++", "there is no C++ compiler for torch.compile")
    case, message = (
        Case("step", "step", (), SMALL.to_json()),
        {"do": "prepare", "kind": "step", "given": SMALL.to_json()},
    )
    mine = Worker("bnengine references", machine).answer(message | {"bounded": True})
    worker = Worker(COMPILE, machine)
    assert difference(case, mine, worker.answer(message | {"bounded": False})) is None
    worker.close()


@pytest.mark.parametrize("case", list(device_kernels(4096)), ids=lambda case: case.name)
def test_single_ops_have_the_same_results(torch: Any, machine: Machine, case: Case) -> None:
    if case.given["dtype"] == "bfloat16":
        require("ml_dtypes")
    op, shape, dtype = op_of(case.given)
    arrays = op.arrays(shape, lambda s, seed: machine.random(s, dtype if len(s) > 1 else "float32", seed), np.copy)
    mine = np.asarray(sampled(op.ours(Memory().run, *arrays)))
    message = {"do": "prepare", "kind": "kernel", "given": case.given, "bounded": False}
    theirs = np.asarray(Worker(EAGER, machine).answer(message)["sample"])
    assert mine.shape == theirs.shape
    assert disagreement(mine, theirs, case.tolerance) is None
    assert torch.get_float32_matmul_precision() == "highest"
    if case.tolerance is not None:
        assert disagreement(mine, 1.1 * theirs, case.tolerance) is not None


def test_where_pytorch_cannot_be_used_the_reason_is_told(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.torch_version() == (None, f"PyTorch {torch.__version__} sees no CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run.torch_version() == (torch.__version__, "")
