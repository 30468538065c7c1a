"""What is aimed at on an H200, as data, and what of it a run has reached."""

from collections.abc import Sequence
from typing import Any, NamedTuple

ADAM = "Adam, 100,000,000 parameters"
SOFTMAX = "softmax cross-entropy (65536, 4096)"
BATCH_NORMS = ("batch norm (65536, 1024)", "batch norm (200704, 256)")
SMALL = ("64-100-100-10", "784-512-512-10", "784-20x128-10")
LARGE = "1024-3x2048-100"
AUTOTUNED = "PyTorch compile max-autotune"
MOST, LEAST = "at most", "at least"


class Target(NamedTuple):
    """A figure of one row, "share", "ratio" or "host_seconds", and what it should be.

    Kernels are told by `what` and `variant` (a dtype). Steps by workload and precision: their ratio is that of the row
    of the contender `by`, its time over ours, and their host time that of our graph.
    """

    what: str
    variant: str
    figure: str
    sense: str
    value: float
    by: str = ""


def _targets() -> tuple[Target, ...]:
    found = []
    for what in BATCH_NORMS:
        for dtype in ("float32", "bfloat16"):
            found.append(Target(what, dtype, "share", LEAST, 0.85))
            found.append(Target(what, dtype, "ratio", LEAST, 1.3, "PyTorch"))
    found.append(Target(ADAM, "float32", "share", LEAST, 0.90))
    found.append(Target(SOFTMAX, "float32", "share", LEAST, 0.85))
    for name in SMALL:
        found.append(Target(name, "highest", "ratio", LEAST, 5.0, "PyTorch eager"))
        found.append(Target(name, "highest", "ratio", LEAST, 1.5, AUTOTUNED))
    found += [Target(LARGE, precision, "ratio", LEAST, 1.1, AUTOTUNED) for precision in ("tf32", "bfloat16")]
    found += [Target(name, "highest", "host_seconds", MOST, 10e-6, "bnengine graph") for name in SMALL]
    found += [Target(LARGE, p, "host_seconds", MOST, 10e-6, "bnengine graph") for p in ("tf32", "bfloat16")]
    return tuple(found)


TARGETS = _targets()
DEVICE = "H200"


def judged(rows: Sequence[dict[str, Any]], on_gpu: bool) -> list[dict[str, Any]]:
    """Each target with the measured figure and whether it is reached; None, and why, where there is no figure."""
    return [_judged(target, rows, on_gpu) for target in TARGETS]


def _judged(target: Target, rows: Sequence[dict[str, Any]], on_gpu: bool) -> dict[str, Any]:
    measured, why = (None, "there is no GPU") if not on_gpu else _measured(target, rows)
    reached = None
    if measured is not None:
        reached = measured <= target.value if target.sense == MOST else measured >= target.value
    found = {**target._asdict(), "device": DEVICE, "measured": measured, "reached": reached}
    return found if why is None else {**found, "why": why}


def _measured(target: Target, rows: Sequence[dict[str, Any]]) -> tuple[float | None, str | None]:
    """The figure, or None and why there is none."""
    for row in rows:
        if (row["what"], row["variant"]) != (target.what, target.variant):
            continue
        if row["kind"] == "step" and row["name"] != target.by:
            continue
        if row["void"]:
            return None, row["void"]
        value = row.get(target.figure)
        value = value["median"] if isinstance(value, dict) else value
        if value is None and row.get("peer") and row["peer"].get("void"):
            return None, row["peer"]["void"]
        return value, None if value is not None else "it was not measured"
    return None, "it was not run"
