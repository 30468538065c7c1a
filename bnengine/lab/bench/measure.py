"""One case: its contenders are prepared, compared with ours, then timed in turns."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import counters
from .agreement import compare, disagreement
from .cases import COPY, OURS, PRODUCTS, Case
from .processes import Lost, Process, Processes, Refused
from .timing import Deadline, in_turns

PREPARING_S, SHORTEST_S, SHARE = 150.0, 20.0, 0.2  # to prepare: at most, at least, and of the time left
ANSWERING_S, LATE_S = 60.0, 10.0  # that an answer may be late; after the deadline
STARTING_S = 0.15  # until another program runs


class Pace(NamedTuple):
    """Rounds, seconds of each contender in a round, and how often a disturbed turn is taken at most."""

    rounds: int
    seconds: float
    tries: int


FULL, QUICK = Pace(7, 0.2, 4), Pace(3, 0.03, 1)
PACES = {
    "product": Pace(7, 0.04, 4),
    "kernel": Pace(7, 0.12, 4),
    "prediction": Pace(7, 0.12, 4),
    "sweep": Pace(3, 0.12, 3),
}


def paced(case: Case, quick: bool) -> Pace:
    """Return how much is measured of a case on a CPU."""
    return QUICK if quick else PACES.get(case.kind, FULL)


class Turn(NamedTuple):
    """Seconds of a call; seconds of cores that others took meanwhile; whether that is too much."""

    seconds: float
    lost: float
    disturbed: bool


@dataclass
class Turns:
    """Takes turns of a contender until others disturb none; if they disturb all, the least disturbed turn counts."""

    turn: Callable[[], Turn]
    until: Deadline
    tries: int
    wait: Callable[[float], None] = time.sleep
    disturbed: int = 0
    kept: int = 0

    def __call__(self) -> float:
        taken = list[Turn]()
        while len(taken) < self.tries:
            taken.append(self.turn())
            if not taken[-1].disturbed:
                return taken[-1].seconds
            self.disturbed += 1
            if self.until.over:
                break
            self.wait(0.1 * len(taken))
        self.kept += 1
        return min(taken, key=lambda turn: turn.lost).seconds


@dataclass
class Measured:
    """Seconds of each role, round by round; why others have none; answers; disturbed turns; those that count."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    disturbed: int = 0
    kept: int = 0


class Asked(Protocol):
    """A worker, wherever it runs."""

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """See `Process.ask`."""


def prepare(case: Case, worker: Callable[[str], Asked], limit: Callable[[str], float]) -> Measured:
    """Prepare contenders one after another, since pools of threads that spin slow each other, and compare them.

    The first of ours that is ready is what others are compared with. Without it no peer is prepared.
    """
    measured, first = Measured(), ""
    for role in case.roles:
        if role in case.peers and not first and not role.startswith(OURS):
            measured.void[role] = "there is nothing of ours to compare it with"
            continue
        message = {"do": "prepare", "kind": case.kind, "given": case.given, "bounded": not first}
        try:
            measured.answers[role] = answer = worker(role).ask(message, limit(role))
        except (Lost, Refused, OSError) as error:
            measured.void[role] = str(error)
            continue
        if role in (PRODUCTS, COPY):
            continue
        first = first or role
        if (why := difference(case, measured.answers[first], answer)) is not None:
            measured.void[role] = why
    return measured


def difference(case: Case, ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Return why an answer is not ours; None if it is."""
    if "losses" in ours:
        return compare(ours["losses"], theirs["losses"], ours["allowed"]).void
    return disagreement(np.asarray(ours["sample"]), np.asarray(theirs["sample"]), case.tolerance)


def measure(case: Case, processes: Processes, share: float, until: Deadline, pace: Pace) -> Measured:
    """Measure a case on a CPU; its rounds get `share` of the time that is left when its contenders are ready."""

    def limit(_role: str) -> float:
        return min(PREPARING_S, max(SHORTEST_S, until.left() * SHARE), max(1.0, until.left()))

    measured = prepare(case, processes.__getitem__, limit)
    deadline = until.part(share)
    turns = {
        role: Turns(_turn(case, role, processes, pace.seconds, until), deadline, pace.tries)
        for role in case.roles
        if role not in measured.void
    }
    rounds = in_turns(turns, pace.rounds, deadline)
    measured.seconds = rounds.seconds
    measured.void |= rounds.failed
    measured.disturbed, measured.kept = (
        sum(getattr(turn, name) for turn in turns.values()) for name in ("disturbed", "kept")
    )
    return measured


def _turn(case: Case, role: str, processes: Processes, seconds: float, until: Deadline) -> Callable[[], Turn]:
    """Return what takes a turn, while another program runs if that is the case."""
    process, threads = processes[role], processes.threads

    def alone(burning: int = 0) -> Turn:
        limit = seconds + min(ANSWERING_S, max(LATE_S, until.left()))
        return take_turn(process, seconds, threads, limit, burning)

    def disturbed() -> Turn:
        cores = counters.read()
        programs = 1 if cores is None else max(1, cores.number - threads + 1)
        burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
        try:
            time.sleep(STARTING_S)
            return alone(len(burning))
        finally:
            for program in burning:
                program.kill()
                program.wait()

    return disturbed if case.kind == "busy" and role == OURS else alone


def take_turn(process: Process, seconds: float, threads: int, limit: float, burning: int = 0) -> Turn:
    """Time a process once between two readings of the system's counters.

    Args:
        limit: seconds in which the answer must come.
        burning: programs that take cores on purpose, each up to one core all the time.
    """
    before, began = counters.read(), time.perf_counter()
    answer = process.ask({"do": "run", "seconds": seconds}, limit)
    elapsed, after = time.perf_counter() - began, counters.read()
    lost = counters.taken(before, after, answer["own"] + burning * elapsed, elapsed, threads)
    too_much = counters.disturbed(lost, 0 if burning else answer["switches"], elapsed, threads)
    return Turn(answer["seconds"], lost or 0.0, too_much)
