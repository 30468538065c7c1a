"""When other programs took the cores: from counters of the tests' own."""

import pytest

from bnengine.lab.bench.counters import TICKS, Cores, disturbed, read, taken

STAT = """cpu  100 20 30 4000 50 6 7 8 900 0
cpu0 50 10 15 2000 25 3 3 4 450 0
cpu1 50 10 15 2000 25 3 4 4 450 0
intr 12345
"""


def test_what_is_not_idle_is_busy_and_cores_are_counted(tmp_path):
    path = tmp_path / "stat"
    path.write_text(STAT)
    # user, nice, system, both interrupts, stolen; not idle, not waiting for a disk, and guests are in user already
    assert read(path) == Cores((100 + 20 + 30 + 6 + 7 + 8) / TICKS, 2)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "something else\n"])
def test_where_there_are_no_counters_nothing_is_known(tmp_path, text):
    path = tmp_path / "stat"
    assert read(path) is None
    path.write_text(text)
    assert read(path) is None


def test_what_others_took_is_what_was_busy_and_not_ours():
    before, after = Cores(100.0, 2), Cores(101.0, 2)
    assert taken(before, after, own=0.9, elapsed=0.5, threads=2) == pytest.approx(0.1)
    assert taken(before, after, own=1.2, elapsed=0.5, threads=2) == 0.0
    assert taken(None, after, own=0.9, elapsed=0.5, threads=2) is None
    assert taken(before, None, own=0.9, elapsed=0.5, threads=2) is None


def test_cores_that_are_left_free_may_be_busy():
    before, after = Cores(100.0, 4), Cores(102.0, 4)
    # four cores for half a second, two of them ours: the other two have a second to spare
    assert taken(before, after, own=1.0, elapsed=0.5, threads=2) == 0.0
    assert taken(before, after, own=0.5, elapsed=0.5, threads=2) == pytest.approx(0.5)
    assert taken(before, after, own=0.5, elapsed=0.5, threads=4) == pytest.approx(1.5)


def test_a_slot_is_disturbed_where_others_took_more_than_noise():
    assert not disturbed(0.029, None, elapsed=0.25, threads=2)
    assert disturbed(0.031, None, elapsed=0.25, threads=2)
    assert not disturbed(0.059, 10_000, elapsed=1.0, threads=2)


def test_without_counters_our_own_switches_tell():
    assert not disturbed(None, 30, elapsed=0.25, threads=2)
    assert disturbed(None, 31, elapsed=0.25, threads=2)
