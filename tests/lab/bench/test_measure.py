"""Rounds, deadlines and disturbed turns, on clocks and counters that the tests move; contenders that are compared."""

import signal
import time
from math import inf

import numpy as np
import pytest

from bnengine.lab.bench import counters, measure
from bnengine.lab.bench.cases import COPY, EAGER, OURS, REFERENCE, Case
from bnengine.lab.bench.counters import TICKS, Cores, disturbed, read, taken
from bnengine.lab.bench.measure import Measured, Turn, difference, prepare, take_turn, undisturbed
from bnengine.lab.bench.timing import Deadline, TimeLimit, first_line, in_turns, limited, ratios, repetitions, spread
from bnengine.lab.bench.worker import Refused
from tests.lab.bench.actor import LOSSES

IDLE, NOISE = Turn(1.0, 0.0, False), Turn(9.0, 0.5, True)
STAT = "cpu  100 20 30 4000 50 6 7 8 900 0\ncpu0 50 1 1 2 2 3 3 4 4 0\ncpu1 50 1 1 2 2 3 4 4 4 0\nintr 12345\n"
CASE = Case("x", "step", (OURS, REFERENCE, COPY, EAGER), {})
MINE = {"losses": LOSSES, "allowed": [1e-3] * 20}
OFF = {"losses": [*LOSSES[:19], 1.01 * LOSSES[19]]}


class Clock:
    """Advances when a test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_medians_and_quartiles_and_ratios_round_by_round():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == (3.0, 2.0, 4.0, 5)
    assert (spread([1.0, 2.0]), spread([7.0])) == ((1.5, 1.25, 1.75, 2), (7.0, 7.0, 7.0, 1))
    # Twice as slow in each round, though the machine was ten times slower in the second one.
    assert ratios([1.0, 10.0, 2.0], [2.0, 20.0, 4.0]) == (2.0, 2.0, 2.0, 3)


def test_a_limit_that_is_reached_in_a_destructor_is_not_lost():
    class Slow:
        def __del__(self):
            time.sleep(0.1)

    def work(_dies_here):
        _dies_here.pop()
        time.sleep(600)

    with pytest.raises(TimeLimit), limited(0.01):
        work([Slow()])


def test_a_deadline_counts_down_and_a_part_has_a_share_of_what_is_left_and_a_ceiling():
    clock = Clock()
    whole, endless = Deadline(40.0, clock), Deadline(clock=clock)
    clock.now += 20.0
    assert (whole.part(0.25).left(), whole.part(1.0, most=3.0).left(), whole.over) == (5.0, 3.0, False)
    assert (endless.left(), endless.part(0.5).left(), endless.part(0.5, most=2.0).left()) == (inf, inf, 2.0)
    clock.now += 30.0
    assert (whole.left(), whole.over, endless.over) == (0.0, True, False)


def test_each_contender_is_first_in_turn():
    calls = []
    found = in_turns({name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}, 3, Deadline())
    assert (calls, found) == (["a", "b", "b", "a", "a", "b"], ({"a": [1.0] * 3, "b": [1.0] * 3}, {}))


def test_after_the_deadline_no_round_begins_but_the_first():
    clock = Clock()

    def slow():
        clock.now += 10.0
        return 10.0

    assert in_turns({"slow": slow}, 9, Deadline(25.0, clock))[0] == {"slow": [10.0] * 3}
    assert in_turns({"slow": slow}, 9, Deadline(0.0, clock))[0] == {"slow": [10.0]}


def test_a_contender_that_raises_drops_out_and_the_others_have_the_same_rounds():
    times = iter([1.0, 2.0])
    found = in_turns({"breaks": lambda: next(times), "stays": lambda: 3.0}, 4, Deadline())
    assert found == ({"stays": [3.0] * 4}, {"breaks": "StopIteration"})
    assert in_turns({}, 4, Deadline()) == ({}, {})
    assert first_line(RuntimeError("\n first\nsecond")) == "RuntimeError: first"


@pytest.mark.parametrize(("once", "times"), [(0.01, 10), (1.0, 1), (1e-9, 500), (0.0, 500)])
def test_repetitions_fill_a_round_within_limits(once, times):
    assert repetitions(once, 0.1, 500) == times


def test_what_takes_too_long_is_stopped_and_the_alarm_given_back():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeLimit, match="not ready within 0 s"), limited(0.01):
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before
    with limited(60.0):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0.0
    with limited(inf):
        assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]) == (before, 0.0)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "something else\n", STAT])
def test_what_is_not_idle_is_busy_and_without_counters_nothing_is_known(tmp_path, text):
    path = tmp_path / "stat"
    assert read(path) is None
    path.write_text(text)
    # user, nice, system, both interrupts, stolen; not idle, not waiting for a disk, and guests are in user already
    assert read(path) == (Cores((100 + 20 + 30 + 6 + 7 + 8) / TICKS, 2) if text == STAT else None)


@pytest.mark.parametrize(
    ("cores", "busy", "own", "threads", "lost"),
    [
        (2, 1.0, 0.9, 2, 0.1),
        (2, 1.0, 1.2, 2, 0.0),
        # four cores for half a second, two of them ours: the other two have a second to spare
        (4, 2.0, 1.0, 2, 0.0),
        (4, 2.0, 0.5, 2, 0.5),
        (4, 2.0, 0.5, 4, 1.5),
    ],
)
def test_what_others_took_is_what_was_busy_beyond_ours_and_the_free_cores(cores, busy, own, threads, lost):
    before, after = Cores(100.0, cores), Cores(100.0 + busy, cores)
    assert taken(before, after, own, 0.5, threads) == pytest.approx(lost)
    assert taken(None, after, own, 0.5, threads) is taken(before, None, own, 0.5, threads) is None


def test_more_than_noise_disturbs_and_without_counters_our_own_switches_count():
    lost = [disturbed(lost, 10_000, elapsed, 2) for lost, elapsed in ((0.029, 0.25), (0.031, 0.25), (0.059, 1.0))]
    assert lost == [False, True, False]
    assert [disturbed(None, switches, 0.25, 2) for switches in (30, 31)] == [False, True]


@pytest.mark.parametrize(
    ("turns", "until", "seconds", "disturbed", "waits"),
    [
        ([IDLE], inf, 1.0, 0, []),
        ([NOISE, NOISE, IDLE], inf, 1.0, 2, [0.1, 0.2]),  # each time a while later
        ([NOISE, Turn(4.0, 0.2, True), Turn(5.0, 0.3, True)], inf, 4.0, 3, [0.1, 0.2]),  # the least disturbed
        ([NOISE, IDLE], 0.0, 9.0, 1, []),  # nothing is repeated after the deadline
    ],
)
def test_disturbed_turns_are_repeated_and_counted(turns, until, seconds, disturbed, waits):
    waited, found = [], Measured()
    assert undisturbed(iter(turns).__next__, found, Deadline(until), 3, waited.append) == seconds
    assert (found.disturbed, found.kept, waited) == (disturbed, int(seconds != 1.0), pytest.approx(waits))


class Answering:
    """A process that answers what it is given while the system's counters advance."""

    def __init__(self, monkeypatch, busy):
        readings = iter([Cores(100.0, 2), Cores(100.0 + busy, 2)])
        monkeypatch.setattr(counters, "read", lambda: next(readings))
        monkeypatch.setattr(measure.time, "perf_counter", iter([10.0, 10.25]).__next__)

    def ask(self, message, seconds):
        assert (message, seconds) == ({"do": "run", "seconds": 0.25}, 60.25)
        return {"seconds": 0.002, "own": 0.5, "switches": 0}


@pytest.mark.parametrize(("busy", "burning", "lost"), [(0.5, 0, 0.0), (0.75, 0, 0.25), (0.75, 1, 0.0)])
def test_a_turn_is_disturbed_by_what_the_counters_say_but_not_by_a_program_that_burns(monkeypatch, busy, burning, lost):
    found = take_turn(Answering(monkeypatch, busy), 0.25, 2, Deadline(clock=Clock()), burning)
    assert found == Turn(0.002, pytest.approx(lost), lost > 0)


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
