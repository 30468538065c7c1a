"""Turns that are repeated, contenders that are compared."""

import numpy as np
import pytest

from bnengine.lab.bench import counters, measure
from bnengine.lab.bench.cases import COPY, EAGER, OURS, REFERENCE, Case
from bnengine.lab.bench.measure import Turn, Turns, difference, prepare, take_turn
from bnengine.lab.bench.processes import Refused
from bnengine.lab.bench.timing import Deadline
from tests.lab.bench.actor import LOSSES

IDLE, NOISE = Turn(1.0, 0.0, False), Turn(9.0, 0.5, True)


@pytest.mark.parametrize(
    ("turns", "until", "seconds", "disturbed", "waits"),
    [
        ([IDLE], None, 1.0, 0, []),
        ([NOISE, NOISE, IDLE], None, 1.0, 2, [0.1, 0.2]),  # each time a while later
        ([NOISE, Turn(4.0, 0.2, True), Turn(5.0, 0.3, True)], None, 4.0, 3, [0.1, 0.2, 0.3]),  # the least disturbed
        ([NOISE, IDLE], 0.0, 9.0, 1, []),  # nothing is repeated after the deadline
    ],
)
def test_disturbed_turns_are_repeated_and_counted(turns, until, seconds, disturbed, waits):
    waited = []
    one = Turns(iter(turns).__next__, Deadline(until), 3, waited.append)
    assert (one(), one.disturbed, one.kept) == (seconds, disturbed, int(seconds != 1.0))
    assert waited == pytest.approx(waits)


class Answering:
    """A process that answers what it is given while the system's counters advance."""

    def __init__(self, monkeypatch, busy, own):
        readings = iter([counters.Cores(100.0, 2), counters.Cores(100.0 + busy, 2)])
        monkeypatch.setattr(counters, "read", lambda: next(readings))
        monkeypatch.setattr(measure.time, "perf_counter", iter([10.0, 10.25]).__next__)
        self.own = own

    def ask(self, message, seconds):
        assert (message, seconds) == ({"do": "run", "seconds": 0.25}, 60.0)
        return {"seconds": 0.002, "own": self.own, "switches": 0}


@pytest.mark.parametrize(("busy", "burning", "lost"), [(0.5, 0, 0.0), (0.75, 0, 0.25), (0.75, 1, 0.0)])
def test_a_turn_is_disturbed_by_what_the_counters_say_but_not_by_a_program_that_burns(monkeypatch, busy, burning, lost):
    found = take_turn(Answering(monkeypatch, busy, 0.5), 0.25, 2, 60.0, burning)
    assert found == Turn(0.002, pytest.approx(lost), lost > 0)


CASE = Case("x", "step", (OURS, REFERENCE, COPY, EAGER), {})
MINE = {"losses": LOSSES, "allowed": [1e-3] * 20}
OFF = {"losses": [*LOSSES[:19], 1.01 * LOSSES[19]]}


class Worker:
    """Answers with what the test gives it, and records whose bounds were requested."""

    def __init__(self, answers):
        self.answers, self.bounded = answers, []

    def __call__(self, role):
        self.role = role
        return self

    def ask(self, message, _seconds):
        self.bounded += [self.role] if message["bounded"] else []
        if self.role not in self.answers:
            raise Refused("it has none")
        return self.answers[self.role]


def test_everybody_is_compared_with_ours_but_those_who_compute_nothing():
    worker = Worker({OURS: MINE, REFERENCE: OFF, COPY: {}, EAGER: {"losses": LOSSES}})
    found = prepare(CASE, worker, lambda _role: 1.0)
    assert (list(found.void), worker.bounded) == ([REFERENCE], [OURS])
    assert found.void[REFERENCE].startswith("at step 20 the loss is ")


def test_the_first_of_ours_that_is_ready_is_compared_with_and_without_any_no_peer_is_prepared():
    worker = Worker({REFERENCE: MINE, COPY: {}, EAGER: OFF})
    found = prepare(CASE, worker, lambda _role: 1.0)
    assert (list(found.void), worker.bounded) == ([OURS, EAGER], [OURS, REFERENCE])
    found = prepare(CASE, Worker({COPY: {}, EAGER: OFF}), lambda _role: 1.0)
    why = "there is nothing of ours to compare it with"
    assert found.void == {OURS: "it has none", REFERENCE: "it has none", EAGER: why}


def test_results_must_be_ours_within_the_tolerance():
    a, b, c = ({"sample": list(scale * np.arange(5.0))} for scale in (1.0, 1.00001, 1.01))
    case = Case("op", "kernel", (OURS,), {"op": "adam"})
    assert difference(case, a, b) is None
    assert "the results differ by 0.01" in difference(case, a, c)
    assert difference(Case("op", "kernel", (OURS,), {"op": "dropout"}), a, c) is None
