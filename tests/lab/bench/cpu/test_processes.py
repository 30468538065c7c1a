"""Processes over pipes: what they answer, and what is told of those that do not."""

import json
import sys
import time
from pathlib import Path

import pytest

from bnengine.lab.bench.cpu.cases import BLAS
from bnengine.lab.bench.cpu.processes import COUNTED, KEEPING, Crew, Lost, Process, Refused, environment
from tests.lab.bench.cpu import actor

ACTOR = Path(actor.__file__)
PREPARE, RUN = {"do": "prepare", "kind": "step"}, {"do": "run", "seconds": 0.1}


@pytest.fixture
def crew(tmp_path):
    """A crew of actors, its parts given by a call."""
    open_ones = []

    def start(**parts):
        command = (sys.executable, str(ACTOR), json.dumps({"JAX jit": parts}))
        open_ones.append(Crew(2, tmp_path, command))
        return open_ones[-1]

    yield start
    for one in open_ones:
        one.__exit__()


def test_a_question_has_its_answer(crew):
    process = crew(seconds=0.25)["JAX jit"]
    assert process.ask(PREPARE, 30)["losses"] == actor.LOSSES
    assert process.ask(RUN, 30) == {"seconds": 0.25, "own": 0.0, "switches": 0}
    assert process.alive


def test_what_refuses_says_why_and_goes_on(crew):
    process = crew(does="refuses")["JAX jit"]
    with pytest.raises(Refused, match="No module named 'somewhere'"):
        process.ask(PREPARE, 30)
    assert process.ask(RUN, 30)["seconds"] == 1e-3


def test_what_ends_is_told_with_its_status_and_its_last_words(crew):
    found = crew(does="dies")
    process = found["JAX jit"]
    with pytest.raises(Lost, match=r"^the process ended with status 9: Killed: out of memory$"):
        process.ask(PREPARE, 30)
    assert not process.alive
    with pytest.raises(Lost, match="ended with status 9"):
        process.ask(RUN, 30)
    assert found["JAX jit"] is not process  # another one is started


def test_what_hangs_is_ended(crew):
    process = crew(does="hangs")["JAX jit"]
    began = time.monotonic()
    with pytest.raises(Lost, match=r"^no answer within 1 s$"):
        process.ask(PREPARE, 1.0)
    assert time.monotonic() - began < 30
    assert not process.alive


def test_what_answers_anything_else_is_ended(crew):
    process = crew(does="babbles")["JAX jit"]
    with pytest.raises(Lost, match="it answered 'not JSON'"):
        process.ask(PREPARE, 30)
    assert not process.alive


def test_what_cannot_be_started_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Process({}, tmp_path / "log", (str(tmp_path / "nowhere"),))


def test_all_processes_end_with_the_crew(tmp_path):
    with Crew(2, tmp_path, (sys.executable, str(ACTOR), "{}")) as crew:
        members = [crew[role] for role in ("bnengine", "PyTorch eager")]
        assert crew["bnengine"] is members[0]
        assert all(one.alive for one in members)
    assert not any(one.alive for one in members)


def test_everybody_has_the_same_threads_and_nobody_what_distorts():
    inherited = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512", "BNENGINE_ISA": "v3", "HOME": "/home/x"}
    for role in ("bnengine", "bnengine references", "PyTorch eager", "JAX jit", "products alone"):
        found = environment(role, 3, inherited)
        assert {found[name] for name in COUNTED} == {"3"}
        assert found["HOME"] == "/home/x"
        assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "BNENGINE_ISA"} & set(found)
    assert {environment("bnengine, 1 thread", 3, {})[name] for name in COUNTED} == {"1"}


def test_peers_keep_freed_pages_and_one_of_ours_has_the_lesser_instruction_set():
    assert environment("bnengine v3", 2, {})["BNENGINE_ISA"] == "v3"
    for role in ("PyTorch eager", "PyTorch compile", "JAX jit"):
        assert environment(role, 2, {}).items() >= KEEPING.items()
    assert not set(KEEPING) & set(environment("bnengine", 2, {}))


def test_single_products_are_of_one_thread_for_both():
    """Ours and OpenBLAS's, whatever the others have."""
    for role, threads in (("bnengine, 1 thread", "1"), (BLAS, "1"), ("bnengine", "4"), ("PyTorch eager", "4")):
        found = environment(role, 4, {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"})
        assert found["OPENBLAS_NUM_THREADS"] == found["BNENGINE_NUM_THREADS"] == threads
        assert "OPENBLAS_CORETYPE" not in found
