"""PyTorch as the benchmarks run it: the same training as ours, the same results of single ops, on the CPU."""

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import torch_peer
from bnengine.lab.bench.agreement import compare, losses
from bnengine.lab.bench.kernel_rows import SAMPLED, disagreement
from bnengine.lab.bench.kernels import Kernel, kernels
from bnengine.lab.bench.machine import Machine, Rates
from bnengine.lab.bench.ours import Ours
from bnengine.lab.bench.step_rows import reference, rows_of
from bnengine.lab.bench.timing import Deadline
from bnengine.lab.bench.torch_kernels import peer
from bnengine.lab.bench.torch_peer import TorchStep
from bnengine.lab.bench.workloads import Workload
from bnengine.network.precision import PrecisionName
from bnengine.runtime.memory import Memory
from tests.support import missing, require

pytestmark = pytest.mark.peers
SMALL = Workload("12-16-16-5", (12, 16, 16, 5), 16, rows=512)
DEEP = Workload("20-8x32-5", (20, *[32] * 8, 5), 32, rows=1024)
RATES = Rates(1e10, {"highest": 1e11})


@pytest.fixture
def machine() -> Machine:
    return Machine(get_backend("numpy"))


@pytest.mark.parametrize(
    ("workload", "precision"),
    [(SMALL, "highest"), (DEEP, "highest"), (SMALL, "bfloat16")],
    ids=lambda w: getattr(w, "name", w),
)
def test_twenty_losses_agree_from_the_same_weights(
    torch: Any, machine: Machine, workload: Workload, precision: PrecisionName
) -> None:
    if precision == "bfloat16":
        require("ml_dtypes")
    data = workload.data()
    ours = Ours(machine, workload, data, precision=precision)
    base, allowed = reference(ours, precision)
    theirs = TorchStep(torch, workload, data, ours.weights, on_gpu=False, precision=precision)
    theirs.prepare()
    found = compare(base, losses(theirs), allowed)
    assert found.void is None
    assert losses(theirs) == losses(theirs)  # it begins anew, optimizer and statistics included


def test_a_peer_with_another_optimizer_does_not_agree(torch: Any, machine: Machine) -> None:
    data = SMALL.data()
    ours = Ours(machine, SMALL, data)
    base, allowed = reference(ours, "highest")
    theirs = TorchStep(torch, SMALL, data, ours.weights, on_gpu=False)
    for group in theirs.optimizer.param_groups:
        group["betas"] = (0.8, 0.999)
    assert compare(base, losses(theirs), allowed).void is not None


def test_data_go_on_in_the_next_epochs_order(torch: Any) -> None:
    data = SMALL.data()
    theirs = TorchStep(torch, SMALL, data, Ours(Machine(get_backend("numpy")), SMALL, data).weights, on_gpu=False)
    theirs.start()
    theirs.run(SMALL.batches)
    np.testing.assert_array_equal(theirs.order.numpy(), data.orders[0])
    theirs.run(1)
    np.testing.assert_array_equal(theirs.order.numpy(), data.orders[1])


def test_a_step_in_a_graph_moves_its_place_in_the_data(torch: Any, machine: Machine) -> None:
    data = SMALL.data()
    ours = Ours(machine, SMALL, data)
    base, allowed = reference(ours, "highest")
    theirs = TorchStep(torch, SMALL, data, ours.weights, on_gpu=False, mode="CUDA graph")
    theirs.graph = SimpleNamespace(replay=lambda: setattr(theirs, "value", theirs._whole()))  # as a replay would
    assert compare(base, losses(theirs), allowed).void is None
    ours.run(SMALL.batches)
    theirs.run(SMALL.batches)  # beyond the epoch's end
    assert theirs.loss() == pytest.approx(ours.loss(), rel=1e-3)


def test_rows_have_ratios_beside_pytorch(torch: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_peer, "MODES", ("eager",))
    before = torch.get_float32_matmul_precision()
    *ours, theirs = rows_of(machine, SMALL, "highest", torch, RATES, Deadline(None), quick=True)
    assert (ours[-1]["void"], theirs["void"]) == (None, None)
    assert theirs["ratio"]["low"] <= theirs["ratio"]["median"] <= theirs["ratio"]["high"]
    assert theirs["loss"]["difference"] <= theirs["loss"]["bound"]
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
def test_a_compiled_step_agrees(torch: Any, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("g++") is None:
        missing("g++", "there is no C++ compiler for torch.compile")
    monkeypatch.setattr(torch_peer, "MODES", ("compile",))
    *_, theirs = rows_of(machine, SMALL, "highest", torch, RATES, Deadline(None), quick=True)
    assert theirs["void"] is None
    assert theirs["ratio"] is not None


@pytest.mark.parametrize("kernel", kernels(4096), ids=lambda k: f"{k.what}, {k.variant}")
def test_single_ops_have_the_same_results(torch: Any, machine: Machine, kernel: Kernel) -> None:
    if kernel.variant == "bfloat16":
        require("ml_dtypes")
    _, call = kernel.ours(machine, kernel.shape, kernel.variant)
    ours = np.asarray(call(Memory())[:SAMPLED], np.float32)
    theirs = peer(torch, kernel.peer, kernel.shape, kernel.variant, "cpu")()[:SAMPLED].detach().float().numpy()
    assert ours.shape == theirs.shape
    assert disagreement(ours, theirs, kernel.tolerance) is None
    if kernel.tolerance is not None:
        assert disagreement(ours, 1.1 * theirs, kernel.tolerance) is not None


def test_where_pytorch_cannot_be_used_the_reason_is_told(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_peer.load(True) == (None, f"PyTorch {torch.__version__} sees no CUDA device")
    assert torch_peer.load(False) == (torch, "")
    assert "CUDA graph" not in torch_peer.modes(False)
    assert torch_peer.modes(True)[0] == "eager"
