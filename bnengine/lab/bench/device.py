"""Measures a case on a GPU, in this process, and makes its rows."""

from functools import partial
from typing import Any

from .agreement import compare
from .cases import OURS, Case
from .machine import Machine, Rates
from .measure import Measured, prepare
from .processes import Local, Refused
from .timing import Deadline, in_turns, ratios, spread
from .workloads import AGREED, Workload

ROUNDS, QUICK_ROUNDS = 21, 5
ROUND_S, QUICK_ROUND_S, OP_ROUND_S = 0.05, 0.02, 0.02  # of steps; of steps when quick; of a single op
OP_S = 60.0  # that a single op may take
TIMING_S, PREPARING, SHORTEST_S = 12.0, 0.75, 5.0  # kept for timing; share of the rest to prepare a peer; at least
HOW = (
    "the recorded launches again and again on arrays larger than the cache, between two CUDA events; PyTorch's op in "
    "turns with it"
)
Row = dict[str, Any]


def measure_on_device(
    case: Case, machine: Machine, rates: Rates, share: float, until: Deadline, quick: bool
) -> list[Row]:
    """Measure a case; peers get `share` of the time left to prepare, ours all of it."""
    deadline = until.part(share, OP_S if case.kind == "kernel" else float("inf"))
    workers = {role: Local(role, machine) for role in case.roles}

    def limit(role: str) -> float:
        if role.startswith(OURS):
            return max(SHORTEST_S, until.left())
        left = deadline.left()
        return max(SHORTEST_S, max(left - TIMING_S, left / 2) * PREPARING)

    try:
        measured = prepare(case, workers.__getitem__, limit)
        seconds = OP_ROUND_S if case.kind == "kernel" else QUICK_ROUND_S if quick else ROUND_S
        ready = [role for role in case.roles if role not in measured.void]
        turns = {role: partial(_seconds, workers[role], seconds) for role in ready}
        rounds = in_turns(turns, QUICK_ROUNDS if quick else ROUNDS, deadline)
        measured.seconds, measured.void = rounds.seconds, measured.void | rounds.failed
        if case.kind == "kernel":
            return [op_row(case, measured, machine, rates)]
        host = {role: _host(workers[role], measured, role, quick) for role in measured.seconds}
        return step_rows(case, measured, host, machine, rates)
    finally:
        for worker in workers.values():
            worker.close()


def _seconds(worker: Local, seconds: float) -> float:
    return float(worker.ask({"do": "run", "seconds": seconds}, float("inf"))["seconds"])


def _host(worker: Local, measured: Measured, role: str, quick: bool) -> dict[str, Any] | None:
    try:
        answer = worker.ask({"do": "host", "rounds": QUICK_ROUNDS if quick else ROUNDS}, float("inf"))
    except Refused as error:
        measured.void[role] = str(error)
        return None
    return spread(answer["seconds"])._asdict()


def op_row(case: Case, measured: Measured, machine: Machine, rates: Rates) -> Row:
    """The row of a single op with its peer's figures; `void` says why figures are missing."""
    given, answer = case.given, measured.answers.get(OURS, {})
    row: Row = {"kind": "kernel", "what": given["what"], "variant": given["variant"], "name": OURS}
    row |= {"shape": given["shape"], given["unit"]: given["amount"], "model": given["model"], "unit": given["unit"]}
    row |= {"how": HOW, "seconds": None, "share": None, "ratio": None, "peer": None, "void": measured.void.get(OURS)}
    ours = measured.seconds.get(OURS)
    for role in case.peers:
        theirs, version = measured.seconds.get(role), measured.answers.get(role, {}).get("version", "")
        timed = None if theirs is None or ours is None else spread(theirs)._asdict()
        row["peer"] = {"name": f"PyTorch {version}".strip(), "seconds": timed, "void": measured.void.get(role)}
        if timed and ours and all(ours):
            row["ratio"] = ratios(ours, theirs or ())._asdict()
    if ours is None:
        return row
    row |= {"launches": answer["launches"], "working_set": answer["working_set"], "cache_bytes": machine.cache_bytes}
    return row | rated(case, spread(ours)._asdict(), rates)


def rated(case: Case, seconds: dict[str, Any], rates: Rates) -> Row:
    """Return time, rate by the case's model, and its share of the machine's measured rate."""
    if seconds["median"] <= 0:
        return {"void": "the device's clock counted no time"}
    rate = case.given["amount"] / seconds["median"]
    whole = rates.bytes if case.given["unit"] == "bytes" else rates.flops["highest"]
    return {"seconds": seconds, "rate": rate, "share": rate / whole if whole else None}


def step_rows(case: Case, measured: Measured, host: dict[str, Any], machine: Machine, rates: Rates) -> list[Row]:
    """A row per contender; ratios are its time over that of the first of ours that works."""
    what, precision, rows = case.given["what"], case.given["precision"], []
    first = next((role for role in case.roles if role in measured.answers), None)
    known = measured.answers[first] if first else {}
    ours = measured.seconds.get(first or "")
    for role in case.roles:
        answer, seconds = measured.answers.get(role, {}), measured.seconds.get(role)
        launches = answer.get("launches_by")
        row: Row = {"kind": "step", "what": what, "variant": precision, "name": role}
        row |= {"seconds": spread(seconds)._asdict() if seconds else None, "host_seconds": host.get(role)}
        row |= {"launches": sum(launches.values()) if launches else None, "launches_by": launches}
        row |= {"peak_bytes": answer.get("peak_bytes"), "ratio": None, "loss": None, "void": measured.void.get(role)}
        if seconds and ours and role != first:
            row["ratio"] = ratios(ours, seconds)._asdict()
        if "losses" in answer:
            agreement = compare(known["losses"], answer["losses"], known["allowed"])
            row["loss"] = {"first": known["losses"][0], "step": AGREED, "loss": agreement.loss,
                           "difference": agreement.difference, "bound": agreement.bound}  # fmt: skip
        rows.append(row | floors(Workload.from_json(case.given), precision, rates, machine.cache_bytes))
    return rows


def floors(workload: Workload, precision: str, rates: Rates, cache: int | None) -> Row:
    """Return what a step computes and moves, the seconds for each at the measured rates, and the larger as the floor.

    Bytes count for the floor where they are more than the cache holds: what fits into the cache is not moved.
    """
    flops, moved = workload.flops, workload.bytes(2 if precision == "bfloat16" else 4)
    rate = rates.flops[precision]
    multiply, move = flops / rate if rate else None, moved / rates.bytes
    known = [multiply, move if cache is not None and moved > cache else None]
    floor = max((seconds for seconds in known if seconds is not None), default=None)
    figures = {"flops": flops, "bytes": moved, "seconds_to_multiply": multiply, "seconds_to_move": move}
    return {**figures, "floor_seconds": floor}
