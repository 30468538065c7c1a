"""The process of one contender: `python -m bnengine.lab.bench.cpu.worker ROLE`, asked line by line.

{"do": "prepare", "kind": ..., "given": ..., "folder": ...} makes what is timed and answers what it computes;
{"do": "run", "seconds": s} times it and answers {"seconds": of a call, "own": of processors, "switches": involuntary}.
"""

import gc
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ....ops import using
from ..timing import first_line, repetitions
from .cases import BLAS, COMPILE, COPY, EAGER, JAX, REFERENCE

MODULES = {EAGER: "torch_subjects", COMPILE: "torch_subjects", JAX: "jax_subjects", BLAS: "numpy_subjects"}
MODULES[COPY] = "numpy_subjects"
OWN = "own_subjects"
PIECES = 10  # that the time of a run is cut into; the median counts
LEAST, MOST = 3, 100_000  # pieces of a run at least, calls of a piece at most


class Subject(NamedTuple):
    """What is timed: `run(n)` makes n calls and waits for the last one; `answer`: what it computes, as JSON values."""

    run: Callable[[int], None]
    answer: dict[str, Any]


def timed(run: Callable[[int], None], once: float, seconds: float) -> float:
    """Seconds of a call: the median over pieces of so many calls that some fill the time; one call before is none."""
    calls = repetitions(once, seconds / PIECES, 1, MOST)
    run(1)
    found, end = list[float](), time.perf_counter() + seconds
    while len(found) < LEAST or time.perf_counter() < end:
        began = time.perf_counter()
        run(calls)
        found.append((time.perf_counter() - began) / calls)
    return statistics.median(found)


def switches() -> int | None:
    """How often this process was put aside though it could run; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Worker:
    """Answers questions; holds what was prepared last."""

    def __init__(self, role: str) -> None:
        self.role, self.once = role, 0.0
        self.subject: Subject | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """To a question, whatever happens; an error is its first line."""
        try:
            return self.prepare(message) if message["do"] == "prepare" else self.run(message["seconds"])
        except Exception as error:  # a library's own, of whatever kind: its row says so
            return {"error": first_line(error)}

    def prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Make it, and see how long a call takes."""
        self.subject = None
        gc.collect()
        module = importlib.import_module(f"{__package__}.{MODULES.get(self.role, OWN)}")
        made: Subject = module.make(self.role, message["kind"], message["given"], Path(message["folder"]))
        self.subject, found = made, list[float]()
        for _ in range(3):
            began = time.perf_counter()
            made.run(1)
            found.append(time.perf_counter() - began)
        self.once = min(found)
        return made.answer

    def run(self, seconds: float) -> dict[str, Any]:
        """Time it."""
        if self.subject is None:
            raise RuntimeError("nothing was prepared")
        put_aside, own = switches(), time.process_time()
        found = timed(self.subject.run, self.once, seconds)
        after = switches()
        aside = None if put_aside is None or after is None else after - put_aside
        return {"seconds": found, "own": time.process_time() - own, "switches": aside}


def answers() -> TextIO:
    """Where answers go; what libraries print goes to the standard error from now on."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def main(role: str) -> None:
    out, worker = answers(), Worker(role)
    with using("reference") if role == REFERENCE else nullcontext():
        for line in sys.stdin:
            out.write(json.dumps(worker.answer(json.loads(line))) + "\n")
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
