"""Whole runs on a CPU: of actors in the contenders' place, and of our own programs."""

import json
import sys

import pytest

from bnengine import fused
from bnengine.arrays.backend import get_backend
from bnengine.errors import InputError
from bnengine.lab.bench import Workload, bench, counters, run
from bnengine.lab.bench.cases import (
    BLAS,
    COMPILE,
    COPY,
    EAGER,
    JAX,
    ONE_THREAD,
    OURS,
    PRODUCTS,
    REFERENCE,
    V3,
    Case,
    kernels,
    products,
)
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.worker import Worker
from bnengine.lab.environment import DISTORTING, commit, warnings
from tests.lab.bench import actor
from tests.support import missing

TINY = Workload("6-8-3", (6, 8, 3), 8)
OTHER = Workload("6-4-4-3", (6, 4, 4, 3), 8)
SECONDS = {OURS: 1e-3, REFERENCE: 5e-3, PRODUCTS: 5e-4, EAGER: 4e-3, COMPILE: 2e-3, JAX: 3e-3}
REFUSED = "ModuleNotFoundError: No module named 'somewhere'"


def call(parts=None, **options):
    """A run of actors on an idle machine."""
    parts_of = {role: {"seconds": SECONDS.get(role, 1e-3), **(parts or {}).get(role, {})} for role in (*SECONDS, V3)}
    command = (sys.executable, "-S", actor.__file__, json.dumps(parts_of))
    options = {"only": "steps", "workloads": [TINY], "quick": True, "threads": 1, "command": command, **options}
    return bench("numpy", **options).to_json()


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    monkeypatch.setattr(counters, "read", lambda: None)


def test_every_contender_is_in_its_row():
    row, lesser = call()
    assert row["peers_ms"] == pytest.approx({EAGER: 4, COMPILE: 2, JAX: 3})
    assert (row["ours_ms"], row["reference_ms"], row["floor_ms"]) == pytest.approx((1, 5, 0.5))
    assert (row["ratio_to_best_peer"], row["ratio_to_floor"]) == pytest.approx((0.5, 2))
    assert (row["best_peer"], row["rounds"], row["disturbed"], row["void"]) == (COMPILE, 3, 0, {})
    assert lesser["name"] == "step 6-8-3, batch 8, x86-64-v3"
    assert row["environment"]["threads"] == 1
    assert {"processor", "commit", "date", "numpy", "peers"} <= set(row["environment"])


def test_peers_that_fail_or_train_otherwise_say_why_and_the_others_go_on():
    wrong = [*actor.LOSSES[:9], 2.0, *actor.LOSSES[10:]]
    rows = call({COMPILE: {"does": "refuses"}, JAX: {"losses": wrong}, V3: {"does": "dies late"}}, workloads=[TINY] * 2)
    for row, lesser in (rows[:2], rows[2:]):  # an ended process is started again for the next case
        assert row["void"][COMPILE] == REFUSED
        assert row["void"][JAX].startswith("at step 10 the loss is 2, ours 2.41: ")
        assert [row["peers_ms"][role] for role in (JAX, COMPILE)] == [None, None]
        assert (row["best_peer"], row["rounds"]) == (EAGER, 3)
        assert lesser["void"][V3] == "Lost: the process ended with status 3"


def test_disturbed_turns_are_counted(monkeypatch):
    busy = iter(range(1000))
    monkeypatch.setattr(counters, "read", lambda: counters.Cores(float(next(busy)), 1))
    row, _ = call(peers=False)
    # Three rounds of ours, of ours on v3, of the references and of the products: each disturbed, none repeated.
    assert (row["disturbed"], row["disturbed_kept"], row["rounds"]) == (12, 12, 3)
    assert (row["peers_ms"], row["ratio_to_best_peer"], row["best_peer"]) == ({}, None, None)


def test_what_comes_after_the_deadline_is_not_run(monkeypatch):
    now, shares = [0.0], []

    def measured(_case, share, **_rest):
        now[0] += 30.0
        shares.append(share)
        return Measured({OURS: [1.0]})

    monkeypatch.setattr(run, "measure", measured)
    rows = call(workloads=[TINY, OTHER, TINY], deadline=40.0, clock=lambda: now[0])
    assert [row["ours_ms"] for row in rows[::2]] == [1000.0, 1000.0, None]
    assert rows[4]["void"] == {OURS: "no time was left before the deadline"}
    assert shares == [pytest.approx(1 / 3), 0.5]  # by weight, of the time left


@pytest.mark.parametrize("error", [MemoryError("no room\nat all"), KeyboardInterrupt()])
def test_a_case_that_fails_does_not_stop_the_next_and_an_interrupt_keeps_what_there_is(monkeypatch, tmp_path, error):
    path = tmp_path / "figures.json"

    def measure(case, **_rest):
        if "6-4-4-3" in case.name:
            raise error
        return Measured({OURS: [1e-3]})

    monkeypatch.setattr(run, "measure", measure)
    options = {"workloads": [TINY, OTHER, TINY], "path": str(path)}
    if isinstance(error, KeyboardInterrupt):
        why = "the run ended before it"
        with pytest.raises(KeyboardInterrupt):
            call(**options)
    else:
        why = "it failed: MemoryError: no room"
        assert call(**options)[4]["ours_ms"] == pytest.approx(1)
    rows = json.loads(path.read_text())
    assert rows[0]["ours_ms"] == pytest.approx(1)
    assert rows[2]["void"][OURS] == why


def test_what_cannot_be_measured_is_an_error():
    with pytest.raises(InputError, match=r"bench: there are no predictions of 6-8-3; name other workloads"):
        call(only="predictions")
    with pytest.raises(InputError, match=r"bench: the backend must be numpy or cupy, got 'array_api_strict'"):
        bench("array_api_strict")


class Here:
    """Our own programs in this process."""

    threads = 1

    def __init__(self, *_given):
        self.members = {}

    def __enter__(self):
        return self

    def __exit__(self, *_error): ...

    def __getitem__(self, role):
        return self.members.setdefault(role, Worker(role, Machine(get_backend("numpy"))))


def test_our_steps_predictions_and_ops_are_timed_and_agree(monkeypatch):
    if why := fused.native().available():
        missing("kernels", why)
    four = Workload("6-8-8-3", (6, 8, 8, 3), 4, rows=4)
    cases = [
        Case("step", "step", (OURS, REFERENCE, PRODUCTS), four.to_json(), PRODUCTS),
        Case("steps", "steps", (OURS, PRODUCTS), four.to_json(), PRODUCTS),
        Case("prediction", "prediction", (OURS, REFERENCE, PRODUCTS), four.to_json(), PRODUCTS),
        *(Case(case.name, "kernel", (OURS, REFERENCE, COPY), case.given, COPY) for case in list(kernels(1000))[2::2]),
        *(Case(case.name, "product", (ONE_THREAD, BLAS), case.given) for case in list(products(four))[2:5]),
    ]
    monkeypatch.setattr(run, "cpu_cases", lambda **_options: cases)
    monkeypatch.setattr(run, "Processes", Here)
    monkeypatch.setattr("bnengine.lab.bench.measure.QUICK", (1, 1e-3, 1))
    monkeypatch.setattr("bnengine.lab.bench.subjects.AGREED", 3)
    rows = bench("numpy", quick=True, threads=1).to_json()
    assert [row["void"] for row in rows] == [{}] * len(cases)
    assert all(row["ours_ms"] > 0 for row in rows)
    assert all(row["floor_ms"] > 0 for row in rows[:-3])
    assert all(row["ratio_to_best_peer"] > 0 for row in rows[-3:])
    assert (rows[0]["isa"], rows[0]["threads"]) == (fused.native().isa(), 1)


def test_what_distorts_numpy_is_warned_of_and_the_commit_is_that_of_the_checkout(monkeypatch):
    for name in DISTORTING:
        monkeypatch.delenv(name, raising=False)
    assert warnings() == []
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert warnings()[0].startswith("OPENBLAS_CORETYPE=Haswell is set: NumPy's BLAS may run other kernels")
    head = commit()
    assert head is None or (len(head.rstrip("+")) == 40 and int(head.rstrip("+"), 16) >= 0)
