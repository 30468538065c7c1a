"""The worker of a contender, in this process or in its own: `processes.WORKER`.

It answers messages, in its own process a line of JSON each:
{"do": "prepare", "kind", "given", "bounded"} builds a subject and answers what it computes;
{"do": "run", "seconds"} times it and answers {"seconds": of a call, "own": of processors, "switches": involuntary};
{"do": "host", "rounds"} answers the seconds in which the host hands a step to an idle GPU, of each round.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from ...arrays.backend import get_backend
from ...ops import using
from .cases import BLAS, COPY, JAX, REFERENCE
from .machine import Machine
from .numpy_peer import Copies, NumpyPeer
from .ours import OurPeer
from .subjects import Peer, Subject
from .timing import first_line, limited, repetitions

PIECES = 10  # of a run on a CPU; the median piece counts
LEAST, MOST = 3, 100_000  # pieces of a run at least, calls of a piece at most
DEVICE_MOST = 2000  # calls of a run on a GPU: all rounds stay within `ours.SCHEDULED` steps
QUEUED = 8  # steps handed to an idle device: fewer than fill its queue


def peer(role: str, machine: Machine) -> Peer:
    """Return what runs in this role. ImportError for a framework that is not installed."""
    if role.startswith("PyTorch"):
        from .torch_peer import TorchPeer

        return TorchPeer(role, machine)
    if role == JAX:
        from .jax_peer import JaxPeer

        return JaxPeer()
    return Copies(machine) if role == COPY else NumpyPeer() if role == BLAS else OurPeer(role, machine)


def timed(run: Callable[[int], None], once: float, seconds: float) -> float:
    """Return the median seconds of a call over pieces that fill the time, after a call that does not count."""
    calls, pieces = repetitions(once, seconds / PIECES, MOST), list[float]()
    run(1)
    end = time.perf_counter() + seconds
    while len(pieces) < LEAST or time.perf_counter() < end:
        began = time.perf_counter()
        run(calls)
        pieces.append((time.perf_counter() - began) / calls)
    return statistics.median(pieces)


def switches() -> int:
    """Return how often this process lost a core that it could have used; 0 where the system does not count."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Refused(Exception):
    """A worker answers with the reason why it cannot do something; it goes on."""


def accepted(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer; Refused if it is a reason."""
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


class Worker:
    """Answers the messages of one role; holds the subject prepared last."""

    def __init__(self, role: str, machine: Machine) -> None:
        self.role, self.machine = role, machine
        self.once, self.clock = 0.0, machine.seconds
        self.subject: Subject | None = None

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Answer within this process. Refused with the reason where it cannot, or not in time."""
        with limited(seconds):
            return accepted(self.answer(message))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Answer any message; an error is answered as its first line."""
        try:
            if message["do"] == "prepare":
                return self._prepare(message)
            if self.subject is None:
                raise RuntimeError("nothing was prepared")
            run = self.subject.run
            if message["do"] == "run":
                return self._run(run, message["seconds"])
            host = [self.machine.passed(lambda: run(QUEUED), done=False) / QUEUED for _ in range(message["rounds"])]
            return {"seconds": host}
        except Exception as error:  # a library's error makes its row void
            return {"error": first_line(error)}

    def close(self) -> None:
        """Release the subject, and on a GPU the memory that its library keeps."""
        self.subject = None
        gc.collect()
        if self.role.startswith("PyTorch"):
            from . import torch_peer

            torch_peer.tidy(self.role)

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        self.subject, kind = None, message["kind"]
        gc.collect()
        self.subject = subject = peer(self.role, self.machine).subject(kind, message["given"], message["bounded"])
        self.clock = self.machine.seconds if kind == "kernel" else self.machine.passed
        self.once = min(self.clock(lambda: subject.run(1)) for _ in range(3))
        return subject.answer

    def _run(self, run: Callable[[int], None], seconds: float) -> dict[str, Any]:
        before, own = switches(), time.process_time()
        if self.machine.on_gpu:
            calls = repetitions(self.once, seconds, DEVICE_MOST)
            each = self.clock(lambda: run(calls)) / calls
        else:
            each = timed(run, self.once, seconds)
        return {"seconds": each, "own": time.process_time() - own, "switches": switches() - before}


def main(role: str) -> None:
    """Answer the lines of the standard input; what libraries print goes to the standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker(role, Machine(get_backend("numpy")))
    with using("reference") if role == REFERENCE else nullcontext():
        for line in sys.stdin:
            print(json.dumps(worker.answer(json.loads(line))), file=out, flush=True)
