"""The rows of a run on a CPU: one per case, and another for steps with the lesser instruction set."""

import statistics
from typing import Any

from .cases import REFERENCE, V3, Case
from .measure import Measured
from .timing import ratios, spread

Row = dict[str, Any]


def cpu_rows(case: Case, measured: Measured, environment: dict[str, Any]) -> list[Row]:
    """Return the rows of a case. Ratios are ours over theirs, round by round: below 1, ours is faster."""
    rows = [_row(case, measured, case.roles[0], environment, case.best_peer, case.by_floor)]
    if V3 in case.roles:
        lesser = _row(case, measured, V3, environment, case.v3, None)
        changes: Row = {"name": f"{case.name}, x86-64-v3", "floor_ms": None, "ratio_to_floor": None, "places": {}}
        rows.append(lesser | changes)
    return rows


def _row(
    case: Case, measured: Measured, role: str, environment: dict[str, Any],
    best_peer: float | None, by_floor: float | None,
) -> Row:  # fmt: skip
    """One row: the median of each contender in milliseconds, None where `void` says why."""
    seconds, answer = measured.seconds, measured.answers.get(role, {})
    ms = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    ours, floor = seconds.get(role), [case.passes * time for time in seconds.get(case.floor or "", ())]
    best = min((peer for peer in case.peers if peer in ms), key=ms.__getitem__, default=None)
    figures = {
        "ratio_to_best_peer": ratios(seconds[best], ours).median if best and ours else None,
        "ratio_to_floor": ratios(floor, ours).median if floor and ours else None,
    }
    target = {"ratio_to_best_peer": best_peer, "ratio_to_floor": by_floor}
    target = {name: aim for name, aim in target.items() if aim is not None}
    return {
        "name": case.name,
        "ours_ms": ms.get(role),
        "reference_ms": ms.get(REFERENCE),
        "floor_ms": 1e3 * statistics.median(floor) if floor else None,
        "peers_ms": {peer: ms.get(peer) for peer in case.peers},
        **figures,
        "threads": answer.get("threads", environment["threads"]),
        "isa": answer.get("isa"),
        "rounds": len(ours or ()),
        "disturbed": measured.disturbed,
        "disturbed_kept": measured.kept,
        "best_peer": best,
        "target": target,
        "reached": {name: reached(figures[name], aim) for name, aim in target.items()},
        "void": {
            name: measured.void[name] for name in (role, REFERENCE, case.floor, *case.peers) if name in measured.void
        },
        "quartiles_ms": {name: [1e3 * q for q in spread(times)[1:3]] for name, times in seconds.items()},
        "loss_at_step_20": answer["losses"][-1] if "losses" in answer else None,
        "kind": case.kind,
        "given": case.given,
        "places": case.places,
        "environment": environment,
    }


def reached(figure: float | None, aim: float | None) -> bool | None:
    """Whether a ratio is at most the target; None where one is missing."""
    return None if figure is None or aim is None else figure <= aim
