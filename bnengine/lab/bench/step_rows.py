"""The rows of training steps: every contender on the same data, agreeing with ours first, then timed in turns."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from ...network.precision import PrecisionName
from . import torch_peer
from .agreement import ENDLESS, MOVED, MOVES, Agreement, bounds, compare, losses, losses_from_here, moved
from .machine import Machine, Mode, Rates
from .ours import Ours
from .timing import Deadline, first_line, in_turns, limited, ratios, repetitions, spread
from .workloads import AGREED, Data, Workload

ROUNDS, QUICK_ROUNDS = 21, 5
ROUND, QUICK_ROUND = 0.05, 0.02  # seconds of steps in a round
LEAST, MOST = 1, 2000  # steps in a round
QUEUED = 8  # steps that are handed to an idle device to see how long that takes: fewer than fill its queue
TIMED = 12.0  # seconds of a part that are kept for timing,
PREPARING = 0.75  # and of the rest, what one peer may take to compile,
SHORTEST = 5.0  # seconds at least, however long ours took
MODES: tuple[Mode, ...] = ("graph", "replayed", "eager")  # the first that works is compared with


Known = tuple[list[float], list[float]]  # our losses, and what others may be off by


class Contender(Protocol):
    """A training step of whatever origin."""

    name: str

    @property
    def launches(self) -> dict[str, int] | None:
        """Launches of a step, by origin, where that is known."""

    def prepare(self) -> None:
        """Compile, record, capture."""

    def start(self) -> None:
        """Begin anew."""

    def run(self, steps: int) -> None:
        """So many steps, without waiting."""

    def loss(self) -> float:
        """The last step's."""

    def peak_bytes(self) -> int | None:
        """Memory on top of the data, where it is known."""


def rows_of(
    machine: Machine,
    workload: Workload,
    precision: PrecisionName,
    torch: Any,
    rates: Rates,
    deadline: Deadline,
    *,
    until: Deadline = ENDLESS,
    quick: bool = False,
) -> list[dict[str, Any]]:
    """A row a contender; the ratio in a peer's row is its time over that of the first of ours that works.

    `deadline` is this part's, which says how long peers may prepare and how many rounds there are; `until` is that of
    everything, after which nothing begins.
    """
    try:
        with torch_peer.multiplying(torch, precision) if torch else nullcontext():
            rows = _measured(machine, workload, precision, torch, deadline, until, quick)
    finally:
        _tidy(torch)
    told = floors(workload, precision, rates, machine.cache_bytes)
    return [row | told for row in rows]


def _measured(
    machine: Machine,
    workload: Workload,
    precision: PrecisionName,
    torch: Any,
    deadline: Deadline,
    until: Deadline,
    quick: bool,
) -> list[dict[str, Any]]:
    data = workload.data()
    ready: dict[str, Contender] = {}
    rows: dict[str, dict[str, Any]] = {}

    def take(those: Iterator[tuple[Contender | None, dict[str, Any]]]) -> None:
        for one, row in those:
            rows[row["name"]] = row
            if one is not None:
                ready[row["name"]] = one

    take(_ours(machine, workload, data, precision, until))
    first = next((one for one in ready.values() if isinstance(one, Ours)), None)
    if first is None:
        return list(rows.values())
    with _void_if_it_fails(rows[first.name]):
        known = reference(first, precision, until)
        take(_theirs(machine, workload, data, precision, torch, first, deadline))
        agreed = {name: one for name, one in ready.items() if _agrees(one, first, known, rows[name], until)}
        _time(machine, agreed, first, rows, deadline, quick)
    return list(rows.values())


def reference(first: Ours, precision: PrecisionName, until: Deadline = ENDLESS) -> Known:
    """Our losses, and what others may be off by: from repetitions with roundings put in."""
    base = losses(first, until)
    repeated = []
    for seed in range(MOVES):
        first.start(moved(first.weights, MOVED[precision], seed))
        repeated.append(losses_from_here(first, until))
    return base, bounds(base, repeated)


def _empty(workload: Workload, precision: PrecisionName, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "step", "what": workload.name, "variant": precision, "name": name}
    row |= dict.fromkeys(("seconds", "host_seconds", "launches", "launches_by", "peak_bytes", "ratio", "loss", "void"))
    return row


def _ours(
    machine: Machine, workload: Workload, data: Data, precision: PrecisionName, until: Deadline
) -> Iterator[tuple[Contender | None, dict[str, Any]]]:
    for mode in MODES[MODES.index(machine.best) :]:

        def make(mode: Mode = mode) -> Contender:
            return Ours(machine, workload, data, precision=precision, mode=mode)

        name = f"bnengine {mode}"
        yield _made(make, _empty(workload, precision, name), max(SHORTEST, until.left()), machine)


def _theirs(
    machine: Machine,
    workload: Workload,
    data: Data,
    precision: PrecisionName,
    torch: Any,
    first: Ours,
    deadline: Deadline,
) -> Iterator[tuple[Contender | None, dict[str, Any]]]:
    if torch is None:
        return
    for mode in torch_peer.modes(machine.on_gpu):

        def make(mode: str = mode) -> Contender:
            return torch_peer.TorchStep(
                torch, workload, data, first.weights, on_gpu=machine.on_gpu, precision=precision, mode=mode
            )

        left = deadline.left()
        seconds = max(SHORTEST, max(left - TIMED, left / 2) * PREPARING)
        yield _made(make, _empty(workload, precision, f"PyTorch {mode}"), seconds, machine)


def _made(
    make: Callable[[], Contender], row: dict[str, Any], seconds: float, machine: Machine
) -> tuple[Contender | None, dict[str, Any]]:
    """A contender that is ready, or None and the row that says why."""
    try:
        with limited(seconds):
            one = make()
            one.prepare()
            row["peak_bytes"] = one.peak_bytes()
            one.start()
    except Exception as error:  # no compiler, no memory, not in time: a row with the reason, and the others go on
        return None, {**row, "void": first_line(error)}
    row["launches_by"] = one.launches
    row["launches"] = None if one.launches is None else sum(one.launches.values())
    machine.backend.synchronize()
    return one, row


def _agrees(one: Contender, first: Ours, known: Known, row: dict[str, Any], until: Deadline) -> bool:
    """Whether its training is ours; the row gets the figures."""
    base, allowed = known
    with _void_if_it_fails(row):
        found = compare(base, base if one is first else losses(one, until), allowed)
        row["loss"], row["void"] = compared(base, found), found.void
    return row["void"] is None


def compared(base: list[float], found: Agreement) -> dict[str, Any]:
    """The comparison of losses as JSON values."""
    figures = {"first": base[0], "step": AGREED, "loss": found.loss}
    return figures | {"difference": found.difference, "bound": found.bound}


def _time(
    machine: Machine,
    contenders: dict[str, Contender],
    first: Ours,
    rows: dict[str, dict[str, Any]],
    deadline: Deadline,
    quick: bool,
) -> None:
    """Seconds a step, in turns; ratios to the first of ours; the host's time."""
    rounds = dict[str, Callable[[], float]]()
    for name, one in contenders.items():
        with _void_if_it_fails(rows[name]):
            rounds[name] = _round(machine, one, QUICK_ROUND if quick else ROUND)
    found = in_turns(rounds, QUICK_ROUNDS if quick else ROUNDS, deadline)
    for name, reason in found.failed.items():
        rows[name]["void"] = reason
    ours = found.seconds.get(first.name)
    for name, seconds in found.seconds.items():
        rows[name]["seconds"] = spread(seconds).to_json()
        if contenders[name] is not first and ours:
            rows[name]["ratio"] = ratios(ours, seconds).to_json()
        if machine.on_gpu:
            with _void_if_it_fails(rows[name]):
                rows[name]["host_seconds"] = _host(machine, contenders[name], quick)


@contextmanager
def _void_if_it_fails(row: dict[str, Any]) -> Iterator[None]:
    """Whatever a contender raises inside is the reason why its row is void, and no end of the others."""
    try:
        yield
    except Exception as error:  # a library's own, of whatever kind
        row["void"] = first_line(error)


def _round(machine: Machine, one: Contender, lasts: float) -> Callable[[], float]:
    """Seconds a step over as many steps as last a while, the device waited for once, at the end."""
    machine.through(lambda: one.run(LEAST))
    steps = repetitions(machine.through(lambda: one.run(LEAST)) / LEAST, lasts, LEAST, MOST)
    return lambda: machine.through(lambda: one.run(steps)) / steps


def _host(machine: Machine, one: Contender, quick: bool) -> dict[str, float]:
    """Seconds that the host needs to hand over a step, the device being idle before."""
    times = QUICK_ROUNDS if quick else ROUNDS
    return spread([machine.handed_over(lambda: one.run(QUEUED)) / QUEUED for _ in range(times)]).to_json()


def floors(workload: Workload, precision: PrecisionName, rates: Rates, cache: int | None) -> dict[str, Any]:
    """What a step must compute and move, the seconds for each at the measured rates, and the larger as its floor.

    Bytes count for the floor where they are more than the cache holds: what stays there is not moved.
    """
    flops, moved = workload.flops, workload.bytes(2 if precision == "bfloat16" else 4)
    rate = rates.flops[precision]
    multiply, move = flops / rate if rate else None, moved / rates.bytes
    known = [multiply, move if cache is not None and moved > cache else None]
    floor = max((seconds for seconds in known if seconds is not None), default=None)
    figures = {"flops": flops, "bytes": moved, "seconds_to_multiply": multiply, "seconds_to_move": move}
    return {**figures, "floor_seconds": floor}


def _tidy(torch: Any) -> None:
    """Give back what the contenders held."""
    if torch is not None and "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
