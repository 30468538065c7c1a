"""`python -m tests.benchmarks.where`: the time of a training step on this CPU by kernel.

Replays each workload's recorded step and reads the clock at every block of every launch, with the next batch each time.
Prints Markdown: microseconds of each kernel, summed over threads, its share of the threads' time, and the time between
blocks, in which threads wait for each other or take blocks. Options: --threads, --replays.
"""

import argparse
from collections.abc import Callable

import numpy as np

from bnengine import threads
from bnengine.arrays.backend import get_backend
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.ours import Ours
from bnengine.lab.bench.workloads import WORKLOADS, Workload
from bnengine.lab.environment import processor
from tests.benchmarks.profile import KindTime, StageTime, by_kind, profile

FEW = 0.005  # kernels with a smaller share make one line


def times(workload: Workload, replays: int) -> list[StageTime]:
    """Profile the stages of a step's replay."""
    ours = Ours(Machine(get_backend("numpy")), workload, workload.data(), mode="replayed")
    ours.run(1)  # uploads the epoch's order
    (plan,) = ours.step.plans.values()
    return profile(plan, replays, batch_by_batch(ours, workload))


def batch_by_batch(ours: Ours, workload: Workload) -> Callable[[], None]:
    """Return a call that moves the cursor to the next batch, after the last one to the first."""
    assert ours.resident is not None
    cursor, at = ours.resident.cursor, iter(range(10**9))

    def before() -> None:
        i = next(at) % workload.batches
        cursor[...] = np.asarray([i * workload.batch, i])

    return before


def lines(name: str, stages: list[StageTime]) -> list[str]:
    """Return a table in Markdown."""
    all_ = threads.get() * sum(stage.seconds for stage in stages)
    kinds = by_kind(stages)
    shown = [kind for kind in kinds if kind.share >= FEW]
    rest = [kind for kind in kinds if kind.share < FEW]
    if rest:
        launches, seconds = sum(kind.launches for kind in rest), sum(kind.seconds for kind in rest)
        shown.append(KindTime(f"{len(rest)} others", launches, seconds, seconds / all_))
    between = all_ - sum(kind.seconds for kind in kinds)
    shown.append(KindTime("between blocks", len(stages), between, between / all_))
    header = [f"| {name}: {all_ / threads.get() * 1e6:,.0f} µs a replay | launches | µs | share |", "|---|---|---|---|"]
    return [*header, *(f"| {k.kernel} | {k.launches} | {k.seconds * 1e6:,.1f} | {k.share:.1%} |" for k in shown)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.where", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=threads.get(), help="of the pool  [%(default)s]")
    parser.add_argument("--replays", type=int, default=200, help="of each step  [%(default)s]")
    given = parser.parse_args()
    threads.set(given.threads)
    print(f"{processor() or 'this CPU'}, {given.threads} threads")
    for workload in WORKLOADS:
        replays = max(20, given.replays // 10) if workload.flops > 10**9 else given.replays
        print("", *lines(f"{workload.name}, batch {workload.batch}", times(workload, replays)), sep="\n")


if __name__ == "__main__":
    main()
