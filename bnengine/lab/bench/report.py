"""The result of a run, written after every case: rows, targets, what was not run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ...errors import InputError
from ...storage.atomic import replace_file
from ...storage.codec import dumps, plain
from .agreement import compare
from .cases import OURS, REFERENCE, V3, Case
from .measure import Measured
from .targets import judged
from .timing import ratios, spread
from .workloads import AGREED, Workload

ENDED = "the run ended before it"
HOW = (
    "the recorded launches again and again on arrays larger than the cache, between two CUDA events; PyTorch's op in "
    "turns with it"
)
Row = dict[str, Any]


def cpu_rows(case: Case, measured: Measured, environment: dict[str, Any]) -> list[Row]:
    """Return the rows of a case: one, and another for steps with the lesser instruction set."""
    return [_cpu_row(case, measured, role, environment) for role in ours_of(case)]


def ours_of(case: Case) -> list[str]:
    """Return our roles that have a row on a CPU."""
    return [role for role in case.roles if role in (case.roles[0], V3)]


def _cpu_row(case: Case, measured: Measured, role: str, environment: dict[str, Any]) -> Row:
    """One row: the median of each contender in milliseconds, None where `void` says why.

    Ratios are ours over theirs, round by round: below 1, ours is faster.
    """
    if role == V3:
        case = replace(case, name=f"{case.name}, x86-64-v3", best_peer=case.v3, by_floor=None, floor=None, places={})
    seconds, answer = measured.seconds, measured.answers.get(role, {})
    spreads = {name: spread([1e3 * each for each in times]) for name, times in seconds.items()}
    ms = {name: each.median for name, each in spreads.items()}
    ours, floor = seconds.get(role), [case.passes * each for each in seconds.get(case.floor or "", ())]
    best = min((peer for peer in case.peers if peer in ms), key=ms.__getitem__, default=None)
    figures = {
        "ratio_to_best_peer": ratios(seconds[best], ours).median if best and ours else None,
        "ratio_to_floor": ratios(floor, ours).median if floor and ours else None,
    }
    aims = {"ratio_to_best_peer": case.best_peer, "ratio_to_floor": case.by_floor}
    target = {name: aim for name, aim in aims.items() if aim is not None}
    return {
        "name": case.name,
        "ours_ms": ms.get(role),
        "reference_ms": ms.get(REFERENCE),
        "floor_ms": 1e3 * spread(floor).median if floor else None,
        "peers_ms": {peer: ms.get(peer) for peer in case.peers},
        **figures,
        "threads": answer.get("threads", environment["threads"]),
        "isa": answer.get("isa"),
        "rounds": len(ours or ()),
        "disturbed": measured.disturbed,
        "disturbed_kept": measured.kept,
        "best_peer": best,
        "target": target,
        "reached": {name: None if (value := figures[name]) is None else value <= aim for name, aim in target.items()},
        "void": {
            name: measured.void[name] for name in (role, REFERENCE, case.floor, *case.peers) if name in measured.void
        },
        "quartiles_ms": {name: [each.low, each.high] for name, each in spreads.items()},
        "loss_at_step_20": answer["losses"][-1] if "losses" in answer else None,
        "kind": case.kind,
        "given": case.given,
        "places": case.places,
        "environment": environment,
    }


class Rates(NamedTuple):
    """What a device was measured to do: bytes copied and operations by precision, per second; its cache in bytes."""

    bytes: float | None
    flops: Mapping[str, float | None]
    cache: int | None = None


def device_rows(case: Case, measured: Measured, rates: Rates) -> list[Row]:
    """Return the row of a single op, or a row of steps for each contender."""
    return [op_row(case, measured, rates)] if case.kind == "kernel" else step_rows(case, measured, rates)


def op_row(case: Case, measured: Measured, rates: Rates) -> Row:
    """The row of a single op with its peer's figures; `void` says why figures are missing."""
    given, answer, ours = case.given, measured.answers.get(OURS, {}), measured.seconds.get(OURS)
    row: Row = {"kind": "kernel", "what": given["what"], "variant": given["variant"], "name": OURS}
    row |= {"shape": given["shape"], given["unit"]: given["amount"], "model": given["model"], "unit": given["unit"]}
    row |= {"how": HOW, "seconds": None, "share": None, "ratio": None, "peer": None, "void": measured.void.get(OURS)}
    for role in case.peers:
        theirs, version = measured.seconds.get(role), measured.answers.get(role, {}).get("version", "")
        timed = spread(theirs)._asdict() if theirs and ours else None
        row["peer"] = {"name": f"PyTorch {version}".strip(), "seconds": timed, "void": measured.void.get(role)}
        if theirs and ours and all(ours):
            row["ratio"] = ratios(ours, theirs)._asdict()
    if ours is None:
        return row
    row |= {"launches": answer["launches"], "working_set": answer["working_set"], "cache_bytes": rates.cache}
    return row | rated(case, spread(ours)._asdict(), rates)


def rated(case: Case, seconds: dict[str, Any], rates: Rates) -> Row:
    """Return time, rate by the case's model, and its share of the machine's measured rate."""
    if seconds["median"] <= 0:
        return {"void": "the device's clock counted no time"}
    rate = case.given["amount"] / seconds["median"]
    whole = rates.bytes if case.given["unit"] == "bytes" else rates.flops["highest"]
    return {"seconds": seconds, "rate": rate, "share": rate / whole if whole else None}


def step_rows(case: Case, measured: Measured, rates: Rates) -> list[Row]:
    """A row per contender; ratios are its time over that of the first of ours that works."""
    precision, rows = case.given["precision"], []
    first = next(iter(measured.answers), "")
    known, ours = measured.answers.get(first, {}), measured.seconds.get(first)
    for role in case.roles:
        answer, seconds = measured.answers.get(role, {}), measured.seconds.get(role)
        launches, loss = answer.get("launches_by"), None
        if "losses" in answer:
            agreement = compare(known["losses"], answer["losses"], known["allowed"])._asdict()
            del agreement["void"]
            loss = {"first": known["losses"][0], "step": AGREED, **agreement}
        rows.append({
            "kind": "step",
            "what": case.given["what"],
            "variant": precision,
            "name": role,
            "seconds": spread(seconds)._asdict() if seconds else None,
            "host_seconds": measured.host.get(role),
            "launches": sum(launches.values()) if launches else None,
            "launches_by": launches,
            "peak_bytes": answer.get("peak_bytes"),
            "ratio": ratios(ours, seconds)._asdict() if ours and seconds and role != first else None,
            "loss": loss,
            "void": measured.void.get(role),
            **floors(Workload.from_json(case.given), precision, rates),
        })  # fmt: skip
    return rows


def floors(workload: Workload, precision: str, rates: Rates) -> Row:
    """Return what a step computes and moves, the seconds for each at the measured rates, and the larger as the floor.

    Bytes count for the floor where they are more than the cache holds: what fits into the cache is not moved.
    """
    flops, moved = workload.flops, workload.bytes(2 if precision == "bfloat16" else 4)
    rate = rates.flops[precision]
    multiply, move = flops / rate if rate else None, moved / rates.bytes if rates.bytes else None
    known = [multiply, move if rates.cache and moved > rates.cache else None]
    floor = max((seconds for seconds in known if seconds is not None), default=None)
    figures = {"flops": flops, "bytes": moved, "seconds_to_multiply": multiply, "seconds_to_move": move}
    return {**figures, "floor_seconds": floor}


def write(path: str, content: bytes, option: str) -> None:
    """Replace a file. InputError, which names the option, if it cannot be written."""
    try:
        replace_file(path, [content])
    except OSError as error:
        why = f"cannot be written ({error.strerror}); give {option} a file in a folder that exists"
        raise InputError(f"bench: {path} {why}") from error


class NotRun(NamedTuple):
    """What was left out, and why."""

    what: str
    why: str


@dataclass
class Report:
    """All that was measured so far, of a run in one process.

    `pending`: cases still to run; `path`: where it is written after every case, None for nowhere.
    """

    environment: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    pending: list[Case] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    copy_bandwidth: dict[str, Any] | None = None
    gemm_rate: dict[str, Any] | None = None

    def skip(self, case: Case, why: str) -> None:
        """Note that a case is not measured."""
        self.not_run.append(NotRun(case.name, why))

    def to_json(self) -> Any:
        """Return JSON values; a number that is not finite is None."""
        left = [*self.not_run, *(NotRun(case.name, ENDED) for case in self.pending)]
        return plain(
            {
                "environment": self.environment,
                "copy_bandwidth": self.copy_bandwidth,
                "gemm_rate": self.gemm_rate,
                "rows": self.rows,
                "targets": judged(self.rows),
                "not_run": [entry._asdict() for entry in left],
            }
        )

    def write(self) -> None:
        """Replace the file by what there is so far. InputError if it cannot be written."""
        if self.path is not None:
            write(self.path, (dumps(self.to_json(), indent=1) + "\n").encode(), "--json")


@dataclass
class CpuReport(Report):
    """All that was measured so far, of a run in processes on a CPU: a list of rows, which name what is void and why."""

    def skip(self, case: Case, why: str) -> None:
        """Add void rows for a case that is not measured."""
        self.rows += self._void_rows(case, why)

    def to_json(self) -> Any:
        """Return the rows as JSON values, those of pending cases included."""
        return plain([*self.rows, *(row for case in self.pending for row in self._void_rows(case, ENDED))])

    def _void_rows(self, case: Case, why: str) -> list[dict[str, Any]]:
        return cpu_rows(case, Measured(void=dict.fromkeys(ours_of(case), why)), self.environment)
