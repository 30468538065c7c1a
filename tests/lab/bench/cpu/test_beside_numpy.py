"""The benchmark of steps and products that take turns: what its rows say, and what its processes answer."""

import json
import subprocess
import time

import pytest

from bnengine import fused
from bnengine.fused.cpu import numpy_blas
from bnengine.lab.bench.cpu.cases import Case, described
from bnengine.lab.bench.cpu.measure import Measured
from bnengine.lab.bench.workloads import Workload
from tests.benchmarks import beside_numpy
from tests.benchmarks.beside_numpy import LEAST, ROLES, hold_to_one_thread, line, rows, timed
from tests.support import ROOT, missing

GIVEN = described(Workload("8-6-3", (8, 6, 3), 4, rows=16)) | {"product": 12}
CASE = Case("8-6-3, batch 4, product of (12, 12)", "step", ROLES, GIVEN)
HAS = {"isa": "v3"}


def made(seconds, void=None):
    told = {role: {"threads": 2, "blas": "a BLAS"} for role in ROLES}
    return list(rows(CASE, Measured(seconds, void or {}, told, 1, 0), HAS))


def test_ratios_are_those_of_the_rounds_and_judged_one_by_one():
    alone = {role: [1.0, 2.0, 4.0] for role in ROLES}
    first, *others = made(alone | {"shared step beside": [2.0, 2.2, 4.4], "shared step beside_one": [2.0, 2.0, 2.0]})
    assert (first["alone_ms"], first["beside_one_ms"], first["beside_ms"]) == (2000, 2000, 2200)
    assert (first["ratio_to_alone"], first["ratio_to_beside_one"]) == pytest.approx((1.1, 1.1))
    assert first["reached"] == {"ratio_to_alone": True, "ratio_to_beside_one": True}
    assert [(row["setting"], row["name"].partition(",")[0]) for row in others] == [
        ("shared", "product"), ("shared", "step and product"),
        ("apart", "step"), ("apart", "product"), ("apart", "step and product"),
    ]  # fmt: skip
    assert (others[1]["alone_ms"], others[1]["beside_ms"]) == (4000, 4200)
    assert others[1]["ratio_to_alone"] == pytest.approx(1.05)
    (slow, *_) = made(alone | {"shared step beside": [1.3, 2.6, 5.2], "shared step beside_one": [1.3, 2.6, 5.2]})
    assert slow["reached"] == {"ratio_to_alone": False, "ratio_to_beside_one": True}
    assert "beside 2600.0000 ms;  beside is 1.30 of alone  1.00 of beside_one" in line(slow)


def test_a_row_without_one_of_its_times_says_why():
    seconds = {role: [1.0] for role in ROLES if role != "shared step beside_one"}
    row, other, both, *_ = made(seconds, {"shared step beside_one": "no room"})
    assert (row["beside_one_ms"], row["ratio_to_alone"], row["reached"]["ratio_to_alone"]) == (None, None, None)
    assert line(row) == "shared  step, 8-6-3, batch 4, product of (12, 12): no room"
    assert other["void"] == {}
    assert both["void"] == row["void"]


def test_only_the_first_of_the_calls_is_timed_and_not_its_first_times(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def one():
        calls.append("one")
        now[0] += 1.0 if len(calls) < 2 * LEAST else 0.25

    def other():
        calls.append("other")
        now[0] += 100.0

    assert timed([one, other], 0.0) == 0.25
    assert calls == ["one", "other"] * (2 * LEAST)


def test_a_blas_that_nothing_holds_to_one_thread_is_named(monkeypatch):
    monkeypatch.setattr(numpy_blas, "named", lambda *_asked: None)
    monkeypatch.setattr(numpy_blas, "found", lambda: numpy_blas.Blas("A BLAS 1.0", "it is no OpenBLAS"))
    with pytest.raises(RuntimeError, match=r"A BLAS 1\.0 cannot be held to one thread"):
        hold_to_one_thread("product")


@pytest.mark.parametrize("setting", beside_numpy.SETTINGS)
def test_a_process_answers_what_it_times_and_on_whose_threads(setting):
    if why := fused.native().available():
        missing("kernels", why)
    questions = [{"do": "prepare", "given": GIVEN}, {"do": "run", "seconds": 0.01}, {"do": "run"}]
    told = subprocess.run(
        [*beside_numpy.COMMAND, f"{setting} step beside"], input="".join(f"{json.dumps(q)}\n" for q in questions),
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    prepared, ran, refused = map(json.loads, told.stdout.splitlines())
    assert prepared["threads"] >= 1
    assert ("says so" in prepared["blas"]) == (setting == "apart")
    assert 0 < ran["seconds"] < 10
    assert set(ran) == {"seconds", "own", "switches"}
    assert refused == {"error": "KeyError: 'seconds'"}
