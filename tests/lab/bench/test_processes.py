"""Workers over pipes: what they answer, why others do not, and how they time a call."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bnengine.arrays.backend import get_backend
from bnengine.lab.bench import worker
from bnengine.lab.bench.cases import BLAS, JAX, ONE_THREAD, OURS
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.processes import KEEP_PAGES, THREADS, Lost, Process, Processes, environment
from bnengine.lab.bench.subjects import Subject
from bnengine.lab.bench.worker import LEAST, PIECES, Refused, Worker, timed
from tests.lab.bench import actor

PREPARE = {"do": "prepare", "kind": "step", "given": {}, "bounded": False}
RUN = {"do": "run", "seconds": 0.1}


@pytest.fixture
def crew(tmp_path):
    """Makes processes of actors, which behave as `parts` say."""

    def made(**parts):
        return Processes(2, tmp_path, (sys.executable, actor.__file__, json.dumps({JAX: parts})))

    return made


def test_a_message_has_its_answer_what_refuses_goes_on_and_all_end_together(crew):
    with crew(seconds=0.25, does="refuses") as processes:
        process, other = processes[JAX], processes[OURS]
        assert processes[JAX] is process
        with pytest.raises(Refused, match="No module named 'somewhere'"):
            process.ask(PREPARE, 60)
        assert process.ask(RUN, 60) == {"seconds": 0.25, "own": 0.0, "switches": 0}
        assert [process.alive, other.alive] == [True, True]
    assert [process.alive, other.alive] == [False, False]


@pytest.mark.parametrize(
    ("does", "seconds", "why"),
    [
        ("dies", 60, r"^the process ended with status 9: Killed: out of memory$"),
        ("hangs", 0.4, r"^no answer within 0 s$"),
        ("babbles", 60, r"^it answered 'not JSON'$"),
    ],
)
def test_what_gives_no_answer_is_ended_and_another_is_started(crew, does, seconds, why):
    with crew(does=does) as processes:
        process = processes[JAX]
        with pytest.raises(Lost, match=why):
            process.ask(PREPARE, seconds)
        assert not process.alive
        with pytest.raises(Lost, match="the process ended with status"):
            process.ask(RUN, 60)
        assert processes[JAX] is not process


def test_what_cannot_be_started_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Process({}, tmp_path / "log", (str(tmp_path / "nowhere"),))


@pytest.mark.parametrize(
    "role", [OURS, "bnengine references", "PyTorch eager", JAX, "products alone", ONE_THREAD, BLAS]
)
def test_everybody_has_the_same_threads_and_nobody_what_distorts(role):
    inherited = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2", "BNENGINE_ISA": "v3", "HOME": "/home/x"}
    found = environment(role, 3, inherited)
    assert {found[name] for name in THREADS} == {"1" if role in (ONE_THREAD, BLAS) else "3"}
    assert found["HOME"] == "/home/x"
    assert not {"OPENBLAS_CORETYPE", "BNENGINE_ISA"} & set(found)
    assert (found.items() >= KEEP_PAGES.items()) == (role in ("PyTorch eager", JAX))
    assert environment("bnengine v3", 2, {})["BNENGINE_ISA"] == "v3"


def test_what_libraries_print_is_no_answer(tmp_path):
    code = (
        "import os, sys\nfrom bnengine.lab.bench import worker\n"
        "worker.Worker.answer = lambda *_: print('chatter') or os.write(1, b'more') and {'answer': 1}\n"
        "worker.main('bnengine')\n"
    )
    process = Process(environment(OURS, 1), tmp_path / "log", (sys.executable, "-c", code))
    assert process.ask(RUN, 60) == {"answer": 1}
    process.end(60)
    assert "more" in Path(tmp_path / "log").read_text()


class Clock:
    """A clock that calls advance."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(worker.time, "perf_counter", lambda: self.now)

    def run(self, n):
        """A call takes a 1,024th of a second, the very first one two seconds."""
        self.now += n / 1024 if self.calls else 2.0
        self.calls.append(n)


def test_the_time_is_cut_into_pieces_after_a_call_that_does_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    assert timed(clock.run, 1 / 1024, 100 / 1024) == 1 / 1024
    assert clock.calls == [1, *[10] * PIECES]
    clock.calls.clear()
    timed(clock.run, 1.0, 1e-6)
    assert clock.calls == [1] * (1 + LEAST)


def test_a_worker_times_what_it_prepared_and_answers_errors(monkeypatch):
    clock = Clock(monkeypatch)
    one = Worker(OURS, Machine(get_backend("numpy"), lambda: clock.now))
    assert one.answer(RUN) == {"error": "RuntimeError: nothing was prepared"}
    peer = SimpleNamespace(subject=lambda *_given: Subject(clock.run, {"losses": [1.0]}))
    monkeypatch.setattr(worker, "peer", lambda *_given: peer)
    assert (one.answer(PREPARE), one.once) == ({"losses": [1.0]}, 1 / 1024)
    found = one.answer(RUN)
    assert (set(found), found["seconds"]) == ({"seconds", "own", "switches"}, 1 / 1024)
    monkeypatch.setattr(worker, "peer", lambda *_given: {}["no room"])
    assert one.answer(PREPARE) == {"error": "KeyError: 'no room'"}
    with pytest.raises(Refused, match="KeyError"):
        one.ask(PREPARE, 60)
