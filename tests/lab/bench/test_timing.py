"""Medians, turns and deadlines, on a clock that the test moves."""

import signal
import time

import pytest

from bnengine.lab.bench.timing import (
    Deadline,
    Spread,
    TimeLimit,
    first_line,
    in_turns,
    limited,
    ratios,
    repetitions,
    spread,
)


class Clock:
    """Advances when a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_spread_of_five_values_is_the_middle_one_and_its_neighbours():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.25, 1.75, 2)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_ratios_are_taken_round_by_round():
    # Twice as slow in each round, though the machine was ten times slower in the second one.
    assert ratios([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == Spread(2.0, 2.0, 2.0, 3)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_a_deadline_counts_down_and_never_below_nothing():
    clock = Clock()
    deadline = Deadline(30.0, clock)
    assert (deadline.left(), deadline.over) == (30.0, False)
    clock.now += 29.0
    assert (deadline.left(), deadline.over) == (1.0, False)
    clock.now += 5.0
    assert (deadline.left(), deadline.over) == (0.0, True)


def test_a_part_has_a_share_of_what_is_left_and_a_ceiling():
    clock = Clock()
    whole = Deadline(40.0, clock)
    clock.now += 20.0
    assert whole.part(0.25).left() == 5.0
    assert whole.part(1.0, most=3.0).left() == 3.0
    endless = Deadline(None, clock)
    assert endless.left() == float("inf")
    assert endless.part(0.5).left() == float("inf")
    assert endless.part(0.5, most=2.0).left() == 2.0


def test_each_contender_is_first_in_turn():
    calls = []

    def contender(name, seconds):
        def run():
            calls.append(name)
            return seconds

        return run

    found = in_turns({"a": contender("a", 1.0), "b": contender("b", 2.0)}, 3, Deadline(None))
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert found.seconds == {"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}
    assert found.failed == {}


def test_after_the_deadline_no_round_begins_but_the_first():
    clock = Clock()

    def slow():
        clock.now += 10.0
        return 10.0

    assert in_turns({"slow": slow}, 9, Deadline(25.0, clock)).seconds == {"slow": [10.0] * 3}
    assert in_turns({"slow": slow}, 9, Deadline(0.0, clock)).seconds == {"slow": [10.0]}


def test_a_contender_that_raises_drops_out_and_the_others_have_the_same_rounds():
    times = iter([1.0, 2.0])

    def breaks():
        try:
            return next(times)
        except StopIteration:
            raise MemoryError("out of memory\nmore words") from None

    found = in_turns({"breaks": breaks, "stays": lambda: 3.0}, 4, Deadline(None))
    assert found.seconds == {"stays": [3.0] * 4}
    assert found.failed == {"breaks": "MemoryError: out of memory"}
    assert in_turns({}, 4, Deadline(None)) == ({}, {})


def test_an_error_is_told_by_its_class_and_first_line():
    assert first_line(RuntimeError("\n first\nsecond")) == "RuntimeError: first"
    assert first_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(("once", "times"), [(0.01, 10), (1.0, 1), (1e-9, 500), (0.0, 500)])
def test_repetitions_fill_a_round_within_limits(once, times):
    assert repetitions(once, 0.1, 500) == times


def test_what_takes_too_long_is_stopped_and_the_alarm_given_back():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeLimit, match="not ready within 0 s"), limited(0.01):
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before
    with limited(60.0):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    with limited(float("inf")):
        assert signal.getsignal(signal.SIGALRM) is before
