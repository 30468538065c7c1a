"""Whole runs of actors in the contenders' place, and one of our own programs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bnengine import fused
from bnengine.errors import InputError
from bnengine.lab.bench import Workload
from bnengine.lab.bench.cpu import bench_cpu, counters, run
from bnengine.lab.bench.cpu.cases import COMPILE, COPY, EAGER, JAX, OURS, PRODUCTS, REFERENCE, Case
from tests.lab.bench.cpu import actor

TINY = Workload("6-8-3", (6, 8, 3), 8)
OTHER = Workload("6-4-4-3", (6, 4, 4, 3), 8)
SECONDS = {OURS: 1e-3, REFERENCE: 5e-3, PRODUCTS: 5e-4, EAGER: 4e-3, COMPILE: 2e-3, JAX: 3e-3}


def call(parts=None, **options):
    """A run of actors on a machine that nobody else uses."""
    told = {role: {"seconds": seconds, **(parts or {}).get(role, {})} for role, seconds in SECONDS.items()}
    command = (sys.executable, actor.__file__, json.dumps(told))
    options = {"only": "steps", "workloads": [TINY], "quick": True, "threads": 1, "command": command, **options}
    return bench_cpu(**options).to_json()


@pytest.fixture(autouse=True)
def rest(monkeypatch):
    monkeypatch.setattr(counters, "read", lambda: None)


def test_every_contender_is_in_its_row():
    row, lesser = call()
    assert row["peers_ms"] == pytest.approx({EAGER: 4, COMPILE: 2, JAX: 3})
    assert (row["ours_ms"], row["reference_ms"], row["floor_ms"]) == pytest.approx((1, 5, 0.5))
    assert row["ratio_to_best_peer"] == pytest.approx(0.5)
    assert row["ratio_to_floor"] == pytest.approx(2)
    assert (row["best_peer"], row["rounds"], row["disturbed"], row["void"]) == (COMPILE, 3, 0, {})
    assert lesser["name"] == "step 6-8-3, batch 8, x86-64-v3"
    assert row["environment"]["threads"] == 1
    assert {"processor", "commit", "date", "numpy", "peers"} <= set(row["environment"])


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("refuses", "ModuleNotFoundError: No module named 'somewhere'"),
        ("dies", "the process ended with status 9: Killed: out of memory"),
        ("dies late", "Lost: the process ended with status 3"),
        ("babbles", "it answered 'not JSON'"),
    ],
)
def test_a_peer_that_fails_says_why_and_the_others_go_on(does, why):
    row, _ = call({COMPILE: {"does": does}})
    assert row["void"] == {COMPILE: why}
    assert row["peers_ms"][COMPILE] is None
    assert row["best_peer"] == JAX
    assert row["rounds"] == 3


def test_a_peer_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr("bnengine.lab.bench.cpu.measure.SHORTEST", 3.0)
    monkeypatch.setattr("bnengine.lab.bench.cpu.measure.BEFORE", 0.0)
    row, _ = call({COMPILE: {"does": "hangs"}}, deadline=600.0)
    assert row["void"] == {COMPILE: "no answer within 3 s"}
    assert row["best_peer"] == JAX


def test_a_peer_that_trains_otherwise_is_void_and_not_timed():
    wrong = [*actor.LOSSES[:9], 2.0, *actor.LOSSES[10:]]
    row, _ = call({JAX: {"losses": wrong}, COMPILE: {"losses": wrong}})
    assert row["void"][JAX].startswith("at step 10 the loss is 2, ours 2.41: ")
    assert (row["best_peer"], row["peers_ms"][JAX]) == (EAGER, None)


def test_where_ours_fails_there_is_nothing_to_compare():
    row, _ = call({OURS: {"does": "refuses"}})
    assert row["ours_ms"] is None
    assert row["void"][OURS] == "ModuleNotFoundError: No module named 'somewhere'"
    assert row["void"][JAX] == "how far it may be off was not measured"


def test_what_has_ended_is_started_again_for_the_next_case():
    rows = call({JAX: {"does": "dies late"}}, workloads=[TINY, OTHER])
    assert [row["void"] for row in rows[::2]] == [{JAX: "Lost: the process ended with status 3"}] * 2


def test_rounds_that_others_disturb_are_counted(monkeypatch):
    busy = iter(range(1000))
    monkeypatch.setattr(counters, "read", lambda: counters.Cores(float(next(busy)), 1))
    row, _ = call(peers=False)
    # three rounds of ours, of ours on v3, of the references and of the products alone: each disturbed, none repeated
    assert (row["disturbed"], row["disturbed_kept"], row["rounds"]) == (12, 12, 3)


def test_without_peers_there_are_none():
    row, _ = call(peers=False)
    assert (row["peers_ms"], row["ratio_to_best_peer"], row["best_peer"]) == ({}, None, None)


def test_what_comes_behind_the_deadline_is_not_run(monkeypatch):
    now = [0.0]

    def measured(*_given):
        now[0] += 30.0
        return run.Measured({OURS: [1.0]}, {}, {}, 0, 0)

    monkeypatch.setattr(run, "measure", measured)
    rows = call(workloads=[TINY, OTHER, TINY], deadline=40.0, clock=lambda: now[0])
    assert [row["ours_ms"] for row in rows[::2]] == [1000.0, 1000.0, None]
    assert rows[4]["void"] == {OURS: "no time was left before the deadline"}


def test_a_case_that_fails_is_told_and_the_next_one_runs(monkeypatch):
    whole = run.measure

    def measure(case, *rest):
        if "6-8-3" in case.name:
            raise MemoryError("no room\nat all")
        return whole(case, *rest)

    monkeypatch.setattr(run, "measure", measure)
    failed, _, right, _ = call(workloads=[TINY, OTHER])
    assert failed["void"][OURS] == "it failed: MemoryError: no room"
    assert (right["name"], right["void"]) == ("step 6-4-4-3, batch 8", {})


def test_an_interrupted_run_keeps_what_it_has(tmp_path, monkeypatch):
    whole, path = run.measure, tmp_path / "figures.json"

    def measure(case, *rest):
        if "6-4-4-3" in case.name:
            raise KeyboardInterrupt
        return whole(case, *rest)

    monkeypatch.setattr(run, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        call(workloads=[TINY, OTHER, TINY], path=str(path))
    found = json.loads(path.read_text())
    assert found[0]["ours_ms"] == pytest.approx(1)
    assert found[2]["void"] == {OURS: "the run ended before it"}


def test_nothing_to_measure_is_an_error():
    with pytest.raises(InputError, match=r"bench: there are no predictions of 6-8-3; ask for others"):
        call(only="predictions")


def test_the_share_of_a_case_is_that_of_its_weight(monkeypatch):
    given = []
    monkeypatch.setattr(run, "measure", lambda _case, _crew, share, *_rest: given.append(share))
    monkeypatch.setattr(run, "rows", lambda *_rest: [])
    call(workloads=[TINY, OTHER])
    assert given == [0.5, 1.0]


# -- our own programs -----------------------------------------------------------------------------------------------


def test_our_steps_references_and_products_are_timed(tmp_path):
    path = tmp_path / "figures.json"
    row, lesser = bench_cpu(
        only="steps", workloads=[TINY], peers=False, quick=True, threads=1, path=str(path)
    ).to_json()
    assert row["reference_ms"] > 0
    assert json.loads(path.read_text()) == [row, lesser]
    if fused.native().available() is None:
        assert row["void"] == {}
        assert row["ours_ms"] > 0
        assert row["floor_ms"] > 0
        assert (row["isa"], row["threads"]) == (fused.native().isa(), 1)
    else:
        assert "no native kernels" in row["void"][OURS]
        assert row["ours_ms"] is None


def test_predictions_and_ops_are_timed_and_agree(monkeypatch):
    if fused.native().available() is not None:
        pytest.skip(fused.native().available())
    small = Case("prediction", "prediction", (OURS, REFERENCE, PRODUCTS),
                 {"name": "6-8-3", "widths": [6, 8, 8, 3], "batch": 4, "rows": 4}, PRODUCTS)  # fmt: skip
    monkeypatch.setattr(run, "cases", lambda **_options: [small, *CASES])
    found = bench_cpu(workloads=[TINY], quick=True, threads=1).to_json()
    assert [row["void"] for row in found] == [{}] * 7
    assert all(row["ours_ms"] > 0 for row in found)
    assert all(row["floor_ms"] > 0 for row in found[:4])
    assert all(row["ratio_to_best_peer"] > 0 for row in found[4:])


def _kernel(op, shape):
    given = {"op": op, "shape": shape, "working_set": 4 * int(np.prod(shape)) * 4}
    return Case(op, "kernel", (OURS, REFERENCE, COPY), given, COPY, 2.0)


CASES = [
    _kernel("batch_norm", [33, 5]),
    _kernel("adam", [40]),
    _kernel("softmax", [7, 5]),
    *(
        Case(kind, "product", ("bnengine, 1 thread", "OpenBLAS (NumPy)"), {"product": kind, "m": 9, "n": 7, "k": 5})
        for kind in ("NN", "NT", "TN")
    ),
]


def test_what_libraries_print_is_no_answer(tmp_path):
    from bnengine.lab.bench.cpu.processes import Process, environment

    code = (
        "import os\nfrom bnengine.lab.bench.cpu import worker\nout = worker.answers()\n"
        "print('chatter'); os.write(1, b'more')\nprint('{\"answer\": 1}', file=out, flush=True)\n"
    )
    process = Process(environment(OURS, 1), tmp_path / "log", (sys.executable, "-c", code))
    assert process.hear(60) == {"answer": 1}
    process.close()
    assert "more" in Path(tmp_path / "log").read_text()
