"""One case: its contenders are prepared, compared with ours, then timed in turns."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import counters
from .agreement import compare, disagreement
from .cases import COPY, OURS, PRODUCTS, Case
from .machine import Machine
from .processes import Lost, Process, Processes
from .timing import Deadline, in_turns, spread
from .worker import Refused, Worker
from .workloads import PRECISIONS

PREPARING_S, SHORTEST_S, SHARE = 150.0, 20.0, 0.2  # to prepare: at most, at least, and of the time left
ANSWERING_S, LATE_S = 60.0, 10.0  # that an answer may be late; after the deadline
STARTING_S = 0.15  # until another program runs
# On a CPU: rounds, seconds of each contender in a round, and how often a disturbed turn is taken at most.
FULL, QUICK = (7, 0.2, 4), (3, 0.03, 1)
PACES = {"product": (7, 0.04, 4), "kernel": (7, 0.12, 4), "prediction": (7, 0.12, 4), "sweep": (3, 0.12, 3)}
COPIED, QUICKLY_COPIED = 1 << 30, 256 << 20  # bytes of a buffer on a GPU
MULTIPLIED, QUICKLY_MULTIPLIED = 8192, 1024  # rows of a matrix on a GPU
# On a GPU: rounds; their seconds.
ROUNDS, QUICK_ROUNDS = 21, 5
ROUND_S, QUICK_ROUND_S, OP_ROUND_S = 0.05, 0.02, 0.02  # of steps; of steps when quick; of a single op
OP_S = 60.0  # that a single op may take
TIMING_S, PREPARING, DEVICE_SHORTEST_S = 12.0, 0.75, 5.0  # kept for timing; share of the rest to prepare a peer; least


class Turn(NamedTuple):
    """Seconds of a call; seconds of cores that others took meanwhile; whether that is too much."""

    seconds: float
    lost: float
    disturbed: bool


@dataclass
class Measured:
    """Seconds of each role, round by round; why others have none; answers; disturbed turns; those that count.

    `host`: on a GPU, the spread of the seconds in which the host hands over a step.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    disturbed: int = 0
    kept: int = 0
    host: dict[str, dict[str, Any]] = field(default_factory=dict)

    def timed(self, turn: Callable[[str], float], rounds: int, deadline: Deadline) -> "Measured":
        """Time all contenders that are ready, in turns."""
        ready = {role: partial(turn, role) for role in self.answers if role not in self.void}
        self.seconds, failed = in_turns(ready, rounds, deadline)
        self.void |= failed
        return self


def prepare(case: Case, worker: Callable[[str], Any], limit: Callable[[str], float]) -> Measured:
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
        if role not in (PRODUCTS, COPY):
            first = first or role
            if (why := difference(case, measured.answers[first], answer)) is not None:
                measured.void[role] = why
    return measured


def difference(case: Case, ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Return why an answer is not ours; None if it is."""
    if "losses" in ours:
        return compare(ours["losses"], theirs["losses"], ours["allowed"]).void
    return disagreement(np.asarray(ours["sample"]), np.asarray(theirs["sample"]), case.tolerance)


# -- on a CPU


def measure(case: Case, processes: Processes, share: float, until: Deadline, quick: bool) -> Measured:
    """Measure a case on a CPU; its rounds get `share` of the time that is left when its contenders are ready."""
    rounds, seconds, tries = QUICK if quick else PACES.get(case.kind, FULL)

    def limit(_role: str) -> float:
        return min(PREPARING_S, max(SHORTEST_S, until.left() * SHARE), max(1.0, until.left()))

    def turn(role: str) -> float:
        busy = case.kind == "busy" and role == OURS
        take = partial(beside_programs if busy else take_turn, processes[role], seconds, processes.threads, until)
        return undisturbed(take, measured, deadline, tries)

    measured = prepare(case, processes.__getitem__, limit)
    deadline = until.part(share)
    return measured.timed(turn, rounds, deadline)


def undisturbed(
    take: Callable[[], Turn], measured: Measured, until: Deadline, tries: int,
    wait: Callable[[float], None] = time.sleep,
) -> float:  # fmt: skip
    """Take turns until others disturb none, and count them; if they disturb all, the least disturbed turn counts."""
    taken = list[Turn]()
    for again in range(1, tries + 1):
        taken.append(take())
        if not taken[-1].disturbed:
            return taken[-1].seconds
        measured.disturbed += 1
        if until.over or again == tries:
            break
        wait(0.1 * again)
    measured.kept += 1
    return min(taken, key=lambda turn: turn.lost).seconds


def take_turn(process: Process, seconds: float, threads: int, until: Deadline, burning: int = 0) -> Turn:
    """Time a process once between two readings of the system's counters.

    Args:
        burning: programs that take cores on purpose, each up to one core all the time.
    """
    limit = seconds + min(ANSWERING_S, max(LATE_S, until.left()))
    before, began = counters.read(), time.perf_counter()
    answer = process.ask({"do": "run", "seconds": seconds}, limit)
    elapsed, after = time.perf_counter() - began, counters.read()
    lost = counters.taken(before, after, answer["own"] + burning * elapsed, elapsed, threads)
    too_much = counters.disturbed(lost, 0 if burning else answer["switches"], elapsed, threads)
    return Turn(answer["seconds"], lost or 0.0, too_much)


def beside_programs(process: Process, seconds: float, threads: int, until: Deadline) -> Turn:
    """Take a turn while other programs leave one core less than there are threads."""
    cores = counters.read()
    number = 1 if cores is None else max(1, cores.number - threads + 1)
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        time.sleep(STARTING_S)
        return take_turn(process, seconds, threads, until, len(burning))
    finally:
        for program in burning:
            program.kill()
            program.wait()


# -- on a GPU


def measure_on_device(case: Case, machine: Machine, share: float, until: Deadline, quick: bool) -> Measured:
    """Measure a case in this process; peers get `share` of the time left to prepare, ours all of it."""
    kernel, rounds = case.kind == "kernel", QUICK_ROUNDS if quick else ROUNDS
    deadline = until.part(share, OP_S if kernel else float("inf"))
    workers = {role: Worker(role, machine) for role in case.roles}
    seconds = OP_ROUND_S if kernel else QUICK_ROUND_S if quick else ROUND_S

    def limit(role: str) -> float:
        left = deadline.left()
        peers = max(left - TIMING_S, left / 2) * PREPARING
        return max(DEVICE_SHORTEST_S, until.left() if role.startswith(OURS) else peers)

    def ask(do: str, role: str) -> Any:
        return workers[role].ask({"do": do, "seconds": seconds, "rounds": rounds}, float("inf"))["seconds"]

    try:
        measured = prepare(case, workers.__getitem__, limit)
        measured.timed(partial(ask, "run"), rounds, deadline)
        for role in () if kernel else measured.seconds:
            try:
                measured.host[role] = spread(ask("host", role))._asdict()
            except Refused as error:
                measured.void[role] = str(error)
        return measured
    finally:
        for worker in workers.values():
            worker.close()


def copies_and_products(machine: Machine, until: Deadline, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the bytes per second of a copy, and the operations per second of a large product in each precision.

    Bytes read and bytes written both count. A product is made by the library that steps use. What the device lacks has
    None; `errors` says why.
    """
    size, n = (QUICKLY_COPIED, QUICKLY_MULTIPLIED) if quick else (COPIED, MULTIPLIED)

    def rate(role: str, given: dict[str, Any], amount: int) -> tuple[float | None, int, dict[str, str]]:
        measured = measure_on_device(Case("rate", "kernel", (role,), given), machine, 0.1, until, quick)
        if measured.void:
            return None, 0, measured.void
        seconds = spread(measured.seconds[role])
        return amount / seconds.median if seconds.median else float("inf"), seconds.rounds, {}

    copied, rounds, _ = rate(COPY, {"working_set": 2 * size}, 2 * size)
    dtypes = {name: "bfloat16" if name == "bfloat16" else "float32" for name in PRECISIONS}
    products = {
        name: rate(OURS, {"op": f"gemm {name}", "shape": [n], "dtype": dtype}, 2 * n**3)
        for name, dtype in dtypes.items()
    }
    return {"bytes_per_second": copied, "buffer": size, "rounds": rounds}, {
        "flops": {name: flops for name, (flops, _, _) in products.items()},
        "n": n,
        "rounds": max(rounds for _, rounds, _ in products.values()),
        "errors": {name: void[OURS] for name, (_, _, void) in products.items() if void},
    }
