"""How a worker times a call."""

from bnengine.lab.bench.cpu import worker
from bnengine.lab.bench.cpu.cases import OURS
from bnengine.lab.bench.cpu.worker import LEAST, PIECES, Subject, Worker, timed


class Clock:
    """A clock that calls move on."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(worker.time, "perf_counter", lambda: self.now)

    def run(self, n):
        """A call takes a 1,024th of a second, the very first one two seconds."""
        self.now += n / 1024 if self.calls else 2.0
        self.calls.append(n)


def test_the_time_is_cut_into_pieces_behind_a_call_that_does_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    assert timed(clock.run, 1 / 1024, 100 / 1024) == 1 / 1024
    assert clock.calls == [1, *[10] * PIECES]


def test_slow_calls_are_made_a_few_times(monkeypatch):
    clock = Clock(monkeypatch)
    timed(clock.run, 1.0, 1e-6)
    assert clock.calls == [1] * (1 + LEAST)


def test_what_was_prepared_is_timed(monkeypatch):
    clock = Clock(monkeypatch)
    made = Subject(clock.run, {"losses": [1.0]})
    monkeypatch.setattr("bnengine.lab.bench.cpu.own_subjects.make", lambda *_given: made)
    one = Worker(OURS)
    assert one.answer({"do": "run", "seconds": 1.0}) == {"error": "RuntimeError: nothing was prepared"}
    told = one.answer({"do": "prepare", "kind": "step", "given": {}, "folder": "."})
    assert (told, one.once) == ({"losses": [1.0]}, 1 / 1024)
    found = one.answer({"do": "run", "seconds": 0.1})
    assert set(found) == {"seconds", "own", "switches"}
    assert found["seconds"] == 1 / 1024


def test_an_error_is_an_answer(monkeypatch):
    def make(*_given):
        raise MemoryError("no room\nat all")

    monkeypatch.setattr("bnengine.lab.bench.cpu.own_subjects.make", make)
    found = Worker(OURS).answer({"do": "prepare", "kind": "step", "given": {}, "folder": "."})
    assert found == {"error": "MemoryError: no room"}
