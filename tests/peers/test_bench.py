"""PyTorch as the benchmarks run it: the same training as ours, the same results of single ops, on the CPU."""

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import Workload, run
from bnengine.lab.bench.agreement import compare, disagreement
from bnengine.lab.bench.cases import COMPILE, EAGER, REFERENCE, Case, device_kernels
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import difference
from bnengine.lab.bench.ops import OPS, op_of
from bnengine.lab.bench.ours import OurPeer, Ours
from bnengine.lab.bench.subjects import SAMPLED
from bnengine.lab.bench.worker import Worker, peer
from bnengine.runtime.memory import Memory
from tests.support import missing, require

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("torch")]
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)
CPU = Machine(get_backend("numpy"))


@pytest.fixture
def torch_step(torch: Any) -> Any:
    """Makes the training in PyTorch."""
    from bnengine.lab.bench.torch_peer import TorchStep

    return lambda workload, *options: TorchStep(workload, workload.data(), torch.device("cpu"), *options)


def reference(workload: Workload, precision: str = "highest") -> Any:
    ours = Ours(CPU, workload, workload.data(), precision)
    return OurPeer(REFERENCE, CPU).compared(ours, precision).values()


@pytest.mark.parametrize(
    ("workload", "precision"), [(SMALL, "highest"), (DEEP, "highest"), (SMALL, "bfloat16")], ids=str
)
def test_twenty_losses_agree_from_the_same_weights(torch_step: Any, workload: Workload, precision: str) -> None:
    if precision == "bfloat16":
        require("ml_dtypes")
    base, allowed = reference(workload, precision)
    theirs = torch_step(workload, precision)
    losses = theirs.losses()
    assert compare(base, losses, allowed).void is None
    assert theirs.losses() == losses  # it begins anew, optimizer and statistics included
    theirs.optimizer.param_groups[0]["betas"] = (0.8, 0.999)
    if precision == "highest":
        assert compare(base, theirs.losses(), allowed).void is not None


def test_data_go_on_in_the_next_epochs_order(torch_step: Any) -> None:
    theirs, orders = torch_step(SMALL), SMALL.data().orders
    theirs.run(SMALL.batches)
    np.testing.assert_array_equal(theirs.order.numpy(), orders[0])
    theirs.run(1)
    np.testing.assert_array_equal(theirs.order.numpy(), orders[1])


def test_a_step_in_a_graph_moves_its_place_in_the_data(torch_step: Any) -> None:
    base, allowed = reference(SMALL)
    theirs, ours = torch_step(SMALL), Ours(CPU, SMALL, SMALL.data())
    theirs.graph = SimpleNamespace(replay=lambda: setattr(theirs, "value", theirs.whole_step()))  # as a replay would
    assert compare(base, theirs.losses(), allowed).void is None
    for each in (ours, theirs):
        each.start()
        each.run(SMALL.batches + 20)  # beyond the epoch's end
    assert theirs.loss() == pytest.approx(ours.loss(), rel=1e-3)


@pytest.mark.slow
def test_a_compiled_step_agrees() -> None:
    if shutil.which("g++") is None:
        missing("g++", "there is no C++ compiler for torch.compile")
    case = Case("step", "step", (), SMALL.to_json())
    mine, worker = OurPeer(REFERENCE, CPU).subject("step", case.given, bounded=True), Worker(COMPILE, CPU)
    message = {"do": "prepare", "kind": "step", "given": case.given, "bounded": False}
    assert difference(case, mine.answer, worker.answer(message)) is None
    worker.close()


@pytest.mark.parametrize("case", list(device_kernels(4096)), ids=lambda case: case.name)
def test_single_ops_have_the_same_results(torch: Any, case: Case) -> None:
    if case.given["dtype"] == "bfloat16":
        require("ml_dtypes")
    op, shape, dtype = op_of(case.given)
    result = OPS[op].ours(Memory().run, *OPS[op].arrays(shape, dtype, OurPeer(REFERENCE, CPU).put))
    mine = np.ravel(result)[:SAMPLED].astype(float)
    theirs = np.asarray(peer(EAGER, CPU).subject("kernel", case.given, bounded=False).answer["sample"])
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
