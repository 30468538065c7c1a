"""Whole runs on NumPy, with small networks, and contenders and clocks of the tests' own."""

import json
import time
from types import SimpleNamespace

import pytest

from bnengine.errors import BackendError
from bnengine.lab.bench import Workload, bench, run, step_rows, torch_peer
from bnengine.lab.bench.machine import DISTORTING, commit
from bnengine.lab.bench.ours import Ours
from bnengine.lab.bench.workloads import AGREED
from bnengine.ops import using

TINY = Workload("6-8-3", (6, 8, 3), 8, rows=128)
OTHER = Workload("6-4-4-3", (6, 4, 4, 3), 8, rows=128)
PRECISE = Workload("6-4-3", (6, 4, 3), 8, ("tf32", "highest"), rows=128)
TORCH = SimpleNamespace(
    __version__="9.9", cuda=SimpleNamespace(is_available=lambda: False),
    get_float32_matmul_precision=lambda: "highest", set_float32_matmul_precision=lambda _name: None,
)  # fmt: skip


class Peer:
    """A peer that is our own network under another name, wrong in the way that `mode` says."""

    def __init__(self, torch, workload, data, weights, *, on_gpu, precision, mode):
        assert torch is TORCH
        assert not on_gpu
        assert set(weights) > {"0.W", "1.gamma", "1.beta"}
        self.name, self.mode, self.launches = f"PyTorch {mode}", mode, None
        if mode == "no compiler":
            raise RuntimeError("cannot find g++\nand more")
        self.inner = Ours(MACHINE[0], workload, data, precision=precision)
        self.at = 0

    def prepare(self):
        self.inner.prepare()

    def start(self):
        self.inner.start()
        if self.mode == "learns faster":
            self.inner.step.schedule([5e-3] * 100)

    def run(self, steps):
        self.at += steps
        if self.mode == "breaks late" and self.at > AGREED + 4:  # in a round, however slow the machine is
            raise MemoryError("no room")
        self.inner.run(steps)

    def loss(self):
        return self.inner.loss()

    def peak_bytes(self):
        return 77


MACHINE = []


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is measured of the machine itself, and uploaded for many steps, is small; NumPy's steps are not replayed."""
    monkeypatch.setattr("bnengine.lab.bench.machine.backend_feature", lambda _backend, _what: None)
    monkeypatch.setattr("bnengine.lab.bench.machine.QUICKLY_COPIED", 1 << 20)
    monkeypatch.setattr("bnengine.lab.bench.ours.SCHEDULED", 1024)


@pytest.fixture
def peers(monkeypatch):
    """PyTorch with these modes in its place."""

    def install(*modes):
        def machine(*args):
            MACHINE[:] = [Machine(*args)]
            return MACHINE[0]

        from bnengine.lab.bench.machine import Machine

        monkeypatch.setattr(run, "Machine", machine)
        monkeypatch.setattr(torch_peer, "load", lambda _on_gpu: (TORCH, ""))
        monkeypatch.setattr(torch_peer, "modes", lambda _on_gpu: modes)
        monkeypatch.setattr(torch_peer, "TorchStep", Peer)

    return install


def call(**options):
    options = {"workloads": [TINY], "quick": True, **options}
    return bench("numpy", **options)


def test_on_a_cpu_steps_run_and_kernels_are_not_run(tmp_path):
    path = tmp_path / "figures.json"
    found = call(peers=False, path=str(path))
    (row,) = found.rows
    assert (row["kind"], row["what"], row["variant"], row["name"]) == ("step", "6-8-3", "highest", "bnengine eager")
    assert row["void"] is None
    assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    assert row["seconds"]["rounds"] == step_rows.QUICK_ROUNDS
    assert (row["loss"]["step"], row["loss"]["difference"]) == (20, 0.0)
    assert row["host_seconds"] is row["launches"] is row["ratio"] is None
    assert row["peak_bytes"] > 0
    assert row["seconds_to_multiply"] == row["flops"] / found.gemm_rate["flops"]["highest"]
    assert row["seconds_to_move"] == row["bytes"] / found.copy_bandwidth["bytes_per_second"]
    told = {left.what: left.why for left in found.not_run}
    assert told["PyTorch beside ours"] == "it was left out"
    assert told["kernels"].startswith("there is no GPU to run them on")
    assert json.loads(path.read_text()) == found.to_json()
    assert found.environment["measured_on"] == "CPU"


def test_a_peer_that_trains_the_same_has_a_ratio(peers):
    peers("eager")
    ours, theirs = call().rows
    assert (theirs["name"], theirs["void"], theirs["peak_bytes"]) == ("PyTorch eager", None, 77)
    assert theirs["ratio"]["rounds"] == ours["seconds"]["rounds"] == theirs["seconds"]["rounds"]
    assert theirs["loss"]["loss"] == ours["loss"]["loss"]


def test_a_peer_that_trains_otherwise_is_void_and_has_no_time(peers):
    peers("learns faster", "eager")
    _, wrong, right = call().rows
    assert wrong["void"].startswith("at step ")
    assert wrong["loss"]["difference"] > wrong["loss"]["bound"]
    assert wrong["seconds"] is wrong["ratio"] is None
    assert right["void"] is None
    assert right["ratio"] is not None


def test_a_peer_that_fails_is_a_row_with_the_first_line_of_its_error(peers):
    peers("no compiler", "breaks late", "eager")
    ours, failed, broken, right = call().rows  # the second one breaks when it is timed
    assert failed["void"] == "RuntimeError: cannot find g++"
    assert broken["void"] == "MemoryError: no room"
    assert ours["void"] is right["void"] is None


def test_a_part_that_fails_is_told_and_the_next_one_runs(monkeypatch):
    whole = run.rows_of

    def rows_of(machine, workload, *rest, **options):
        if workload is TINY:
            raise MemoryError("no room\nat all")
        return whole(machine, workload, *rest, **options)

    monkeypatch.setattr(run, "rows_of", rows_of)
    found = call(workloads=[TINY, OTHER], peers=False)
    assert [row["what"] for row in found.rows] == ["6-4-4-3"]
    assert ("steps of 6-8-3, highest", "it failed: MemoryError: no room") in found.not_run


def test_a_peer_that_is_not_ready_in_time_is_void(peers, monkeypatch):
    peers("eager")
    monkeypatch.setattr(Peer, "prepare", lambda _self: time.sleep(60))
    monkeypatch.setattr(step_rows, "SHORTEST", 0.01)
    _, late = call(deadline=5.0).rows
    assert late["void"].startswith("TimeLimit: not ready within ")


def test_the_rest_is_not_run_after_the_deadline(monkeypatch):
    now = [0.0]

    def rows_of(_machine, workload, *_rest, **_options):
        now[0] += 30.0
        return [{"kind": "step", "what": workload.name, "variant": "highest", "name": "bnengine eager", "void": None}]

    monkeypatch.setattr(run, "rows_of", rows_of)
    found = call(workloads=[TINY, OTHER, PRECISE], peers=False, deadline=40.0, clock=lambda: now[0])
    assert [row["what"] for row in found.rows] == ["6-8-3", "6-4-4-3"]
    assert ("steps of 6-4-3, highest", "no time was left before the deadline") in found.not_run


def test_where_the_deadline_comes_before_the_losses_are_compared_the_row_says_so(monkeypatch):
    now = [0.0]
    run_of = Ours.run

    def slow(self, steps):
        now[0] += 10.0 * steps
        run_of(self, steps)

    monkeypatch.setattr(Ours, "run", slow)
    (row,) = call(peers=False, deadline=100.0, clock=lambda: now[0]).rows
    assert row["void"].startswith("TimeLimit: no time was left to compare losses, after ")
    assert row["seconds"] is None


def test_each_part_has_its_share_of_the_time_that_is_left(monkeypatch):
    given = []

    def rows_of(_machine, _workload, _precision, _torch, _rates, deadline, **_options):
        given.append(deadline.left())
        return []

    monkeypatch.setattr(run, "rows_of", rows_of)
    call(workloads=[TINY, OTHER], peers=False, deadline=40.0, clock=lambda: 0.0)
    assert given == [20.0, 40.0]


def test_precisions_that_a_cpu_lacks_are_not_run():
    found = call(workloads=[PRECISE], peers=False)
    assert [row["variant"] for row in found.rows] == ["highest"]
    assert ("steps of 6-4-3, tf32", "less precision than float32 is for a GPU") in found.not_run
    found = call(workloads=[PRECISE], peers=False, precisions=["tf32"])
    assert found.rows == []
    assert not any(left.what.endswith("highest") for left in found.not_run)


def test_only_kernels_or_only_steps():
    assert call(only="kernels", peers=False).rows == []
    assert not any(left.what == "kernels" for left in call(only="steps", peers=False).not_run)


def test_an_interrupted_run_keeps_what_it_has(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    whole = step_rows.rows_of

    def rows_of(machine, workload, *rest, **options):
        if workload is OTHER:
            raise KeyboardInterrupt
        return whole(machine, workload, *rest, **options)

    monkeypatch.setattr(run, "rows_of", rows_of)
    with pytest.raises(KeyboardInterrupt):
        call(workloads=[TINY, OTHER, TINY], peers=False, path=str(path))
    found = json.loads(path.read_text())
    assert [row["what"] for row in found["rows"]] == ["6-8-3"]
    left = [one["what"] for one in found["not_run"] if one["why"] == "the run ended before it"]
    assert left == ["steps of 6-4-4-3, highest", "steps of 6-8-3, highest"]


def test_where_ours_cannot_run_its_row_says_why_and_nothing_else_does(monkeypatch, peers):
    peers("eager")

    def fails(*_args, **_options):
        raise MemoryError("too large")

    monkeypatch.setattr(step_rows, "Ours", type("Ours", (), {"__init__": fails}))
    (row,) = call().rows
    assert row["void"] == "MemoryError: too large"


def test_a_step_that_cannot_be_replayed_is_void_and_op_by_op_is_compared(monkeypatch):
    offers = {"replayer": object(), "REPLAYED_AS": "graph"}
    monkeypatch.setattr("bnengine.lab.bench.machine.backend_feature", lambda _name, what: offers.get(what))
    with using("reference"):
        graph, replayed, eager = call(peers=False).rows
    assert graph["void"].startswith("InputError: Step: graph=True, but ")
    assert replayed["void"].startswith("InputError: bench: steps run op by op: no fused version of ")
    assert (eager["name"], eager["void"]) == ("bnengine eager", None)


def test_what_distorts_numpy_is_warned_of(monkeypatch):
    for name in DISTORTING:
        monkeypatch.delenv(name, raising=False)
    assert call(only="kernels", peers=False).environment["warnings"] == []
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    (warning,) = call(only="kernels", peers=False).environment["warnings"]
    assert warning.startswith("OPENBLAS_CORETYPE=Haswell is set: NumPy's BLAS may run other kernels")


def test_the_commit_is_that_of_the_checkout_or_not_told():
    found = commit()
    assert found is None or (len(found.rstrip("+")) == 40 and int(found.rstrip("+"), 16) >= 0)


def test_a_backend_that_cannot_be_used_is_an_error():
    with pytest.raises(BackendError, match="there is no backend 'numpi'"):
        bench("numpi")
