"""`python -m tests.benchmarks.where`: where a training step's time goes on this CPU, kernel by kernel.

ReplayCache each workload's recorded step with a look at the clock at every block of every launch, a batch further each
time. Prints Markdown: microseconds of each kernel on all threads together, its share of what the threads had, and what
they spent otherwise, waiting for each other or taking blocks. --threads, --replays.
"""

import argparse
from collections.abc import Callable

import numpy as np

from bnengine import threads
from bnengine.arrays.backend import get_backend
from bnengine.fused.cpu.profile import KindTime, StageTime, by_kind, profile
from bnengine.lab.bench.machine import Machine
from bnengine.lab.bench.ours import Ours
from bnengine.lab.bench.workloads import WORKLOADS, Workload
from bnengine.lab.environment import processor

FEW = 0.005  # kernels of a lesser share are told together


def times(workload: Workload, replays: int) -> list[StageTime]:
    """The stages of a step's replay."""
    ours = Ours(Machine(get_backend("numpy")), workload, workload.data(), mode="replayed")
    ours.prepare()
    ours.run(1)  # the epoch's order is there
    (plan,) = ours.step.plans.values()
    return profile(plan, replays, batch_by_batch(ours, workload))


def batch_by_batch(ours: Ours, workload: Workload) -> Callable[[], None]:
    """Sets the cursor to the next batch each time, at the end to the first."""
    assert ours.resident is not None
    cursor, at = ours.resident.cursor, iter(range(10**9))

    def before() -> None:
        i = next(at) % workload.batches
        cursor[...] = np.asarray([i * workload.batch, i])

    return before


def lines(name: str, stages: list[StageTime]) -> list[str]:
    """A table in Markdown."""
    all_ = threads.get() * sum(stage.seconds for stage in stages)
    kinds = by_kind(stages)
    told = [kind for kind in kinds if kind.share >= FEW]
    rest = [kind for kind in kinds if kind.share < FEW]
    if rest:
        launches, seconds = sum(kind.launches for kind in rest), sum(kind.seconds for kind in rest)
        told.append(KindTime(f"{len(rest)} others", launches, seconds, seconds / all_))
    between = all_ - sum(kind.seconds for kind in kinds)
    told.append(KindTime("between blocks", len(stages), between, between / all_))
    header = [f"| {name}: {all_ / threads.get() * 1e6:,.0f} µs a replay | launches | µs | share |", "|---|---|---|---|"]
    return [*header, *(f"| {k.kernel} | {k.launches} | {k.seconds * 1e6:,.1f} | {k.share:.1%} |" for k in told)]


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
