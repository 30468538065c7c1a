"""One case: its contenders made ready, compared with ours, then timed in rounds that nobody disturbs."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..agreement import compare
from ..kernel_rows import disagreement
from ..timing import Deadline, Rounds, in_turns
from . import counters, inputs
from .cases import COPY, OURS, PRODUCTS, REFERENCE, Case
from .processes import Crew, Lost, Process, Refused

PREPARING, SHORTEST = 150.0, 20.0  # seconds that contenders may take to be ready, compilers among them: in between
BEFORE = 0.2  # of the time that is left
HEARING, LATE = 60.0, 10.0  # seconds that a slot may take longer than it should; and behind the deadline
STARTING = 0.15  # seconds until another program runs


class Pace(NamedTuple):
    """How much is measured: rounds, seconds of each contender in one, how often a slot is repeated at most."""

    rounds: int
    seconds: float
    tries: int


QUICK = Pace(3, 0.03, 1)
PACES = {
    "product": Pace(7, 0.04, 4),
    "kernel": Pace(7, 0.12, 4),
    "prediction": Pace(7, 0.12, 4),
    "sweep": Pace(3, 0.12, 3),
}
FULL = Pace(7, 0.2, 4)  # of the others


class Slot(NamedTuple):
    """Seconds of a call, and seconds of cores that others took meanwhile, if that is known, or if it was too much."""

    seconds: float
    lost: float
    disturbed: bool


class Watched:
    """A contender's turn: repeated where others took the cores; where they always do, the least disturbed counts."""

    def __init__(
        self, turn: Callable[[], Slot], until: Deadline, tries: int, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self.turn, self.until, self.tries, self.wait = turn, until, tries, wait
        self.disturbed = self.kept = 0

    def __call__(self) -> float:
        found = list[Slot]()
        while len(found) < self.tries:
            found.append(self.turn())
            if not found[-1].disturbed:
                return found[-1].seconds
            self.disturbed += 1
            if self.until.over:
                break
            self.wait(0.1 * len(found))
        self.kept += 1
        return min(found, key=lambda slot: slot.lost).seconds


class Measured(NamedTuple):
    """Seconds of each role round by round; why roles have none; what ours told; rounds that were disturbed."""

    seconds: dict[str, list[float]]
    void: dict[str, str]
    told: dict[str, dict[str, Any]]
    disturbed: int
    kept: int


def paced(case: Case, quick: bool) -> Pace:
    """How much is measured of a case."""
    return QUICK if quick else PACES.get(case.kind, FULL)


def measure(case: Case, crew: Crew, share: float, until: Deadline, pace: Pace) -> Measured:
    """Prepare, compare, time. `share`: of the time that is then left until the end of everything, for the rounds."""
    folder = crew.folder / "case"
    folder.mkdir()
    try:
        inputs.write(case.kind, case.given, folder)
        told, void = prepared(case, crew, folder, until)
        void |= disagreeing(case, told, folder)
    finally:
        shutil.rmtree(folder)
    deadline = until.part(share)
    watched = {
        role: Watched(turn(case, role, crew, pace.seconds, until), deadline, pace.tries)
        for role in case.roles
        if role not in void
    }
    rounds = in_turns(watched, pace.rounds, deadline) if watched else Rounds({}, {})
    disturbed, kept = (sum(getattr(one, name) for one in watched.values()) for name in ("disturbed", "kept"))
    return Measured(rounds.seconds, void | rounds.failed, told, disturbed, kept)


def prepared(
    case: Case, crew: Crew, folder: Path, until: Deadline
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:  # fmt: skip
    """(what each contender computes, why others are not ready), one after the other: pools of threads that spin would
    hold up each other.
    """
    told, void = dict[str, dict[str, Any]](), dict[str, str]()
    message = {"do": "prepare", "kind": case.kind, "given": case.given, "folder": str(folder)}
    for role in case.roles:
        seconds = min(PREPARING, max(SHORTEST, until.left() * BEFORE), max(1.0, until.left()))
        try:
            told[role] = crew[role].ask(message, seconds)
        except (Lost, Refused, OSError) as error:
            void[role] = str(error)
    return told, void


def disagreeing(case: Case, told: dict[str, dict[str, Any]], folder: Path) -> dict[str, str]:
    """Why contenders do not compute what ours computes; without native kernels, what our references compute."""
    first = next((role for role in (case.roles[0], REFERENCE) if role in told), None)
    others = [role for role in told if role not in (PRODUCTS, COPY, first)]
    if first is None:
        return dict.fromkeys(others, "there is nothing of ours to compare it with")
    found = {role: difference(told[first], told[role], folder) for role in others}
    return {role: why for role, why in found.items() if why is not None}


def difference(ours: dict[str, Any], theirs: dict[str, Any], folder: Path) -> str | None:
    """Why an answer is not ours; None if it is."""
    if "losses" in ours:
        if ours["allowed"] is None:
            return "how far it may be off was not measured"
        return compare(ours["losses"], theirs["losses"], ours["allowed"]).void
    a, b = (np.load(folder / answer["sample"]) for answer in (ours, theirs))
    return disagreement(a, b, ours["tolerance"])


def turn(case: Case, role: str, crew: Crew, seconds: float, until: Deadline) -> Callable[[], Slot]:
    """A contender's slot in a round; while another program runs, if the case is that of ours on a busy machine."""
    process, threads = crew[role], crew.threads

    def one(burning: int = 0) -> Slot:
        limit = seconds + min(HEARING, max(LATE, until.left()))
        return slot(process, seconds, threads, limit, burning)

    def disturbed_one() -> Slot:
        cores = counters.read()
        programs = 1 if cores is None else max(1, cores.number - threads + 1)
        burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
        try:
            time.sleep(STARTING)
            return one(len(burning))
        finally:
            for program in burning:
                program.kill()
                program.wait()

    return disturbed_one if case.kind == "busy" and role == OURS else one


def slot(process: Process, seconds: float, threads: int, limit: float, burning: int = 0) -> Slot:
    """Time a process once, the system's counters read before and after.

    `limit`: seconds until the answer is there. `burning`: programs that are to take cores; each may have one all the
    time.
    """
    before, began = counters.read(), time.perf_counter()
    found = process.ask({"do": "run", "seconds": seconds}, limit)
    elapsed, after = time.perf_counter() - began, counters.read()
    lost = counters.taken(before, after, found["own"] + burning * elapsed, elapsed, threads)
    too_much = counters.disturbed(lost, None if burning else found["switches"], elapsed, threads)
    return Slot(found["seconds"], lost or 0.0, too_much)
