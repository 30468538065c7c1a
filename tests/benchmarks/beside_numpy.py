"""Training steps and products of NumPy that take turns: what each takes, beside what it takes in a loop of its own.

    python -m tests.benchmarks.beside_numpy [--quick] [--json FILE]

Both want all cores. By default NumPy's OpenBLAS has its jobs run on our threads, with BNENGINE_NUMPY_BLAS=apart on its
own. Of each setting: the step and the product alone, again and again; each in turns with the other on all threads; and
in turns with the other held to one thread, which empties the caches as well but contests no core. Each of these is a
process, and all have their turns in every round; rounds that other programs disturb are repeated.
"""

import argparse
import ctypes
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bnengine import threads
from bnengine.arrays.backend import get_backend
from bnengine.fused.cpu import numpy_blas
from bnengine.lab.bench.cpu.cases import ROWS, Case, described
from bnengine.lab.bench.cpu.inputs import workload_of
from bnengine.lab.bench.cpu.measure import Measured, Pace, Watched, prepared, turn
from bnengine.lab.bench.cpu.processes import Crew
from bnengine.lab.bench.cpu.report import judged
from bnengine.lab.bench.cpu.run import about
from bnengine.lab.bench.cpu.worker import answers, switches
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.ours import Ours
from bnengine.lab.bench.report import plain, put
from bnengine.lab.bench.timing import Deadline, first_line, in_turns, ratios
from bnengine.lab.bench.workloads import WORKLOADS
from bnengine.runtime import cores

SIZES = 256, 512, 1024  # rows and columns of the matrices that NumPy multiplies
SETTINGS = numpy_blas.SHARED, numpy_blas.APART
WHAT, HOW = ("step", "product"), ("alone", "beside_one", "beside")
ROLES = tuple(f"{setting} {what} {how}" for setting in SETTINGS for what in WHAT for how in HOW)
COMMAND = (sys.executable, "-m", "tests.benchmarks.beside_numpy", "--worker")
WHOLE, QUICK = Pace(9, 0.3, 4), Pace(3, 0.1, 1)
TARGET = 1.2  # of the time alone, or of that beside one thread: the pools cost each other no more
LEAST = 10  # turns of a run; as many before it do not count
Call = Callable[[], object]


def cases() -> Iterator[Case]:
    """Two workloads, each beside products of three sizes."""
    for workload in WORKLOADS[:2]:
        for size in SIZES:
            given = described(replace(workload, rows=ROWS)) | {"product": size}
            yield Case(f"{workload.name}, batch {workload.batch}, product of ({size}, {size})", "step", ROLES, given)


# -- the process of a role


class Worker:
    """Answers as bnengine/lab/bench/cpu/worker.py does: `seconds` are those of what its role times."""

    def __init__(self, role: str) -> None:
        setting, self.what, self.how = role.split()
        os.environ[numpy_blas.VARIABLE] = setting

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """To a question; an error is its first line."""
        try:
            return self.prepare(message["given"]) if message["do"] == "prepare" else self.run(message["seconds"])
        except Exception as error:  # whatever it is: a row says so
            return {"error": first_line(error)}

    def prepare(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make both, and what has its turns."""
        workload = workload_of(given)
        ours = Ours(Machine(get_backend("numpy")), workload, workload.data(), mode="replayed")
        ours.prepare()
        rng, size = np.random.default_rng(0), given["product"]
        a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
        out = np.empty_like(a)
        calls: dict[str, Call] = {"step": lambda: ours.run(1), "product": lambda: np.matmul(a, b, out=out)}
        self.calls = [calls.pop(self.what), *(calls.values() if self.how != "alone" else ())]
        if self.how == "beside_one":
            hold_to_one_thread("product" if self.what == "step" else "step")
        return {"threads": threads.get(), "blas": numpy_blas.described(threads.get())}

    def run(self, seconds: float) -> dict[str, Any]:
        """Time it."""
        before, own = switches(), time.process_time()
        found = timed(self.calls, seconds)
        after = switches()
        aside = None if before is None or after is None else after - before
        return {"seconds": found, "own": time.process_time() - own, "switches": aside}


def hold_to_one_thread(what: str) -> None:
    """From now on, our steps or NumPy's products. RuntimeError where its BLAS is no OpenBLAS."""
    if what == "step":
        return threads.set(1)
    linked = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    hold = numpy_blas.named(linked, "openblas_set_num_threads")
    if hold is None:
        raise RuntimeError(f"{numpy_blas.found().name} cannot be held to one thread")
    hold(1)
    return None


def timed(calls: list[Call], seconds: float) -> float:
    """The median time of the first of several calls that take turns for so long."""
    found, end = list[float](), time.perf_counter() + seconds
    while len(found) < 2 * LEAST or time.perf_counter() < end:
        began = time.perf_counter()
        calls[0]()
        found.append(time.perf_counter() - began)
        for call in calls[1:]:
            call()
    return statistics.median(found[LEAST:])


# -- all of them


def measured(case: Case, crew: Crew, pace: Pace) -> Measured:
    """Each role in each round."""
    until = Deadline(None)
    told, void = prepared(case, crew, crew.folder, until)
    watched = {role: Watched(turn(case, role, crew, pace.seconds, until), until, pace.tries) for role in told}
    rounds = in_turns(watched, pace.rounds, until)
    disturbed, kept = (sum(getattr(one, name) for one in watched.values()) for name in ("disturbed", "kept"))
    return Measured(rounds.seconds, void | rounds.failed, told, disturbed, kept)


def rows(case: Case, found: Measured, environment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each setting: the step, the product, their sum. Ratios are medians over the rounds: above 1, it is slower."""
    for setting in SETTINGS:
        for parts in ((WHAT[0],), (WHAT[1],), WHAT):
            roles = {how: [f"{setting} {what} {how}" for what in parts] for how in HOW}
            rounds = {how: [found.seconds.get(role, []) for role in named] for how, named in roles.items()}
            times = {how: [sum(one) for one in zip(*each, strict=True)] for how, each in rounds.items() if all(each)}
            whole = len(times) == len(HOW)
            over = {how: ratios(times[how], times["beside"]).median if whole else None for how in HOW[:2]}
            told, concerned = (
                found.told.get(roles["beside"][0], {}),
                [role for named in roles.values() for role in named],
            )
            yield {
                "name": f"{' and '.join(parts)}, {case.name}",
                "setting": setting,
                **{f"{how}_ms": 1e3 * statistics.median(times[how]) if how in times else None for how in HOW},
                **{f"ratio_to_{how}": ratio for how, ratio in over.items()},
                "target": {f"ratio_to_{how}": TARGET for how in over},
                "reached": {f"ratio_to_{how}": judged(ratio, TARGET) for how, ratio in over.items()},
                "threads": told.get("threads"),
                "isa": environment["isa"],
                "blas": told.get("blas"),
                "rounds": len(times.get("beside", ())),
                "disturbed": found.disturbed,
                "disturbed_kept": found.kept,
                "void": {role: why for role, why in found.void.items() if role in concerned},
                "given": case.given,
                "environment": environment,
            }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if row["void"]:
        return f"{row['setting']}  {row['name']}: {'; '.join(row['void'].values())}"
    times = "  ".join(f"{how} {row[f'{how}_ms']:8.4f}" for how in HOW)
    over = "  ".join(f"{row[f'ratio_to_{how}']:.2f} of {how}" for how in HOW[:2])
    return f"{row['setting']}  {row['name']:68}  {times} ms;  beside is {over}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", metavar="FILE", help="where the rows go")
    given = parser.parse_args()
    if given.worker:
        out, worker = answers(), Worker(given.worker)
        for question in sys.stdin:
            out.write(json.dumps(worker.answer(json.loads(question))) + "\n")
            out.flush()
        return
    number, found = cores.default(), list[dict[str, Any]]()
    environment = about(number)
    with tempfile.TemporaryDirectory() as folder, Crew(number, Path(folder), COMMAND) as crew:
        for case in cases():
            for row in rows(case, measured(case, crew, QUICK if given.quick else WHOLE), environment):
                found.append(plain(row))
                print(line(row), flush=True)
    if given.json:
        put(given.json, found)


if __name__ == "__main__":
    main()
