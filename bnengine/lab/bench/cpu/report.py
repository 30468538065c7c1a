"""The rows of a run on a CPU: one a case, and one more for a workload on the lesser instruction set."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from ....storage.codec import plain
from ..report import put
from ..timing import ratios, spread
from .cases import REFERENCE, V3, Case
from .measure import Measured

NO_TIME = "no time was left before the deadline"
ENDED = "the run ended before it"


def rows(case: Case, found: Measured, threads: int, environment: dict[str, Any]) -> list[dict[str, Any]]:
    """What a case has come to. Ratios are ours over theirs, round by round: below 1, ours is faster."""
    first = next(iter(case.roles))
    made = [row(case, found, first, threads, environment, case.best_peer, case.by_floor)]
    if V3 in case.roles:
        lesser = row(case, found, V3, threads, environment, case.v3, None)
        made.append({**lesser, "name": f"{case.name}, x86-64-v3", "floor_ms": None, "ratio_to_floor": None})
        made[-1]["places"] = {}
    return made


def row(
    case: Case, found: Measured, role: str, threads: int, environment: dict[str, Any],
    best_peer: float | None, by_floor: float | None,
) -> dict[str, Any]:  # fmt: skip
    """One row: the median of each contender in milliseconds, None where `void` says why."""
    seconds = found.seconds
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ours, floor = seconds.get(role), _floor(case, seconds)
    timed = [peer for peer in case.peers if peer in median]
    best = min(timed, key=median.__getitem__) if timed else None
    to_peer = None if best is None or not ours else ratios(seconds[best], ours).median
    to_floor = None if floor is None or not ours else ratios(floor, ours).median
    told = found.told.get(role, {})
    concerned = (role, REFERENCE, case.floor, *case.peers)
    aimed = {"ratio_to_best_peer": best_peer, "ratio_to_floor": by_floor}
    figures = {"ratio_to_best_peer": to_peer, "ratio_to_floor": to_floor}
    losses = told.get("losses")
    return {
        "name": case.name,
        "ours_ms": _ms(median.get(role)),
        "reference_ms": _ms(median.get(REFERENCE)),
        "floor_ms": None if floor is None else _ms(statistics.median(floor)),
        "peers_ms": {peer: _ms(median.get(peer)) for peer in case.peers},
        **figures,
        "threads": told.get("threads", threads),
        "isa": told.get("isa"),
        "rounds": len(ours or ()),
        "disturbed": found.disturbed,
        "disturbed_kept": found.kept,
        "best_peer": best,
        "target": {name: aim for name, aim in aimed.items() if aim is not None},
        "reached": {name: judged(figures[name], aim) for name, aim in aimed.items() if aim is not None},
        "void": {name: found.void[name] for name in concerned if name in found.void},
        "quartiles_ms": {name: [_ms(q) for q in spread(times)[1:3]] for name, times in seconds.items()},
        "loss_at_step_20": losses[-1] if losses else None,
        "kind": case.kind,
        "given": case.given,
        "places": case.places,
        "environment": environment,
    }


def _floor(case: Case, seconds: dict[str, list[float]]) -> list[float] | None:
    times = None if case.floor is None else seconds.get(case.floor)
    return [case.passes * one for one in times] if times else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def judged(figure: float | None, aim: float) -> bool | None:
    """Whether a ratio is at most what is aimed at; None where there is none."""
    return None if figure is None else figure <= aim


def untimed(case: Case, why: str, threads: int, environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a case that was not run."""
    first = next(iter(case.roles))
    void = dict.fromkeys((first, V3) if V3 in case.roles else (first,), why)
    return rows(case, Measured({}, void, {}, 0, 0), threads, environment)


@dataclass
class CpuReport:
    """All that was measured so far; `pending`: cases that are still to be run."""

    environment: dict[str, Any]
    threads: int
    path: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    pending: list[Case] = field(default_factory=list)

    def to_json(self) -> list[dict[str, Any]]:
        """The rows as JSON values, those of what is pending too."""
        left = [row for case in self.pending for row in untimed(case, ENDED, self.threads, self.environment)]
        found: list[dict[str, Any]] = plain([*self.rows, *left])
        return found

    def write(self) -> None:
        """Put what there is in the place of the file; InputError if it cannot be written."""
        if self.path is not None:
            put(self.path, self.to_json())
