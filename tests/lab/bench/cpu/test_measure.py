"""Turns that are repeated, contenders that are compared."""

import numpy as np
import pytest

from bnengine.lab.bench.cpu import counters, measure
from bnengine.lab.bench.cpu.cases import COPY, EAGER, OURS, REFERENCE, Case
from bnengine.lab.bench.cpu.measure import Slot, Watched, difference, disagreeing, slot
from bnengine.lab.bench.timing import Deadline
from tests.lab.bench.cpu.actor import LOSSES

REST, NOISE = Slot(1.0, 0.0, False), Slot(9.0, 0.5, True)


def watched(slots, tries=4, until=None):
    waits = []
    one = Watched(iter(slots).__next__, until or Deadline(None), tries, waits.append)
    return one, waits


def test_a_turn_that_nobody_disturbs_is_taken_once():
    one, waits = watched([REST])
    assert (one(), one.disturbed, one.kept, waits) == (1.0, 0, 0, [])


def test_a_disturbed_turn_is_repeated_and_counted():
    one, waits = watched([NOISE, NOISE, REST])
    assert (one(), one.disturbed, one.kept) == (1.0, 2, 0)
    assert waits == pytest.approx([0.1, 0.2])  # each time a while later


def test_where_all_turns_are_disturbed_the_one_that_was_least_counts():
    one, _ = watched([Slot(9.0, 0.5, True), Slot(4.0, 0.2, True), Slot(5.0, 0.3, True)], tries=3)
    assert (one(), one.disturbed, one.kept) == (4.0, 3, 1)


def test_nothing_is_repeated_behind_the_deadline():
    one, waits = watched([NOISE, REST], until=Deadline(0.0))
    assert (one(), one.disturbed, one.kept, waits) == (9.0, 1, 1, [])


class Asked:
    """A process that answers what it is given, and moves the system's counters."""

    def __init__(self, monkeypatch, busy, own):
        readings = iter([counters.Cores(100.0, 2), counters.Cores(100.0 + busy, 2)])
        monkeypatch.setattr(counters, "read", lambda: next(readings))
        self.own, self.switches = own, 0

    def ask(self, message, seconds):
        assert message == {"do": "run", "seconds": 0.25}
        assert seconds == 60.0
        return {"seconds": 0.002, "own": self.own, "switches": self.switches}


def test_a_slot_is_disturbed_by_what_the_counters_say(monkeypatch):
    assert slot(Asked(monkeypatch, 0.5, 0.5), 0.25, 2, 60.0) == Slot(0.002, 0.0, False)
    found = slot(Asked(monkeypatch, 0.75, 0.5), 0.25, 2, 60.0)
    assert (found.lost, found.disturbed) == (pytest.approx(0.25), True)


def test_a_program_that_burns_on_purpose_does_not_count(monkeypatch):
    monkeypatch.setattr(measure.time, "perf_counter", iter([10.0, 10.25]).__next__)
    found = slot(Asked(monkeypatch, 0.75, 0.5), 0.25, 2, 60.0, burning=1)
    assert found == Slot(0.002, 0.0, False)


CASE = Case("x", "step", (OURS, REFERENCE, COPY, EAGER), {})
MINE = {"losses": LOSSES, "allowed": [1e-3] * 20}
OFF = [*LOSSES[:19], 1.01 * LOSSES[19]]


def test_losses_must_be_ours_within_what_is_allowed(tmp_path):
    assert difference(MINE, {"losses": [1.0005 * loss for loss in LOSSES]}, tmp_path) is None
    assert difference(MINE, {"losses": OFF}, tmp_path).startswith("at step 20 the loss is ")


def test_results_must_be_ours_within_the_tolerance(tmp_path):
    for name, scale in (("a", 1.0), ("b", 1.00001), ("c", 1.01)):
        np.save(tmp_path / f"{name}.npy", scale * np.arange(5.0))
    ours = {"sample": "a.npy", "tolerance": 1e-4}
    assert difference(ours, {"sample": "b.npy"}, tmp_path) is None
    assert "the results differ by 0.01" in difference(ours, {"sample": "c.npy"}, tmp_path)


def test_everybody_is_compared_with_ours_but_those_who_compute_nothing(tmp_path):
    told = {OURS: MINE, REFERENCE: {"losses": OFF}, COPY: {}, EAGER: {"losses": LOSSES}}
    assert list(disagreeing(CASE, told, tmp_path)) == [REFERENCE]


def test_without_native_kernels_the_references_are_what_others_are_compared_with(tmp_path):
    told = {REFERENCE: MINE, EAGER: {"losses": OFF}}
    assert list(disagreeing(CASE, told, tmp_path)) == [EAGER]
    assert disagreeing(CASE, {EAGER: {"losses": LOSSES}}, tmp_path) == {
        EAGER: "there is nothing of ours to compare it with"
    }
    unmeasured = {REFERENCE: {"losses": LOSSES, "allowed": None}, EAGER: {"losses": LOSSES}}
    assert disagreeing(CASE, unmeasured, tmp_path) == {EAGER: "how far it may be off was not measured"}
