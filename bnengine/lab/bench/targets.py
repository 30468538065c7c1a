"""The targets on an H200, and which of them a run reaches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

BATCH_NORMS = ("batch norm (65536, 1024)", "batch norm (200704, 256)")
SMALL = ("64-100-100-10", "784-512-512-10", "784-20x128-10")
LARGE = "1024-3x2048-100"
AUTOTUNED = "PyTorch compile max-autotune"
MOST, LEAST = "at most", "at least"
DEVICE = "H200"


class Target(NamedTuple):
    """A figure of one row ("share", "ratio" or "host_seconds") and what it should be.

    `what` and `variant` name the row: an op and its dtype, or a workload and its precision. Of steps, the ratio is the
    time of the contender `by` over ours, and host time is that of our graph.
    """

    what: str
    variant: str
    figure: str
    sense: str
    value: float
    by: str = ""


TARGETS = (
    *(Target(what, dtype, *aim)
      for what in BATCH_NORMS for dtype in ("float32", "bfloat16")
      for aim in (("share", LEAST, 0.85), ("ratio", LEAST, 1.3, "PyTorch"))),
    Target("Adam, 100,000,000 parameters", "float32", "share", LEAST, 0.90),
    Target("softmax cross-entropy (65536, 4096)", "float32", "share", LEAST, 0.85),
    *(Target(name, "highest", "ratio", LEAST, ratio, by)
      for name in SMALL for ratio, by in ((5.0, "PyTorch eager"), (1.5, AUTOTUNED))),
    *(Target(LARGE, precision, "ratio", LEAST, 1.1, AUTOTUNED) for precision in ("tf32", "bfloat16")),
    *(Target(name, "highest", "host_seconds", MOST, 10e-6, "bnengine graph") for name in SMALL),
    *(Target(LARGE, precision, "host_seconds", MOST, 10e-6, "bnengine graph") for precision in ("tf32", "bfloat16")),
)  # fmt: skip


def judged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each target with the measured figure and whether it is reached; None, and why, without a figure."""
    judged = []
    for target in TARGETS:
        value, why = _measured(target, rows)
        result = {**target._asdict(), "device": DEVICE, "measured": value, "reached": None}
        if value is None:
            result["why"] = why
        else:
            result["reached"] = value <= target.value if target.sense == MOST else value >= target.value
        judged.append(result)
    return judged


def _measured(target: Target, rows: Sequence[dict[str, Any]]) -> tuple[float | None, str]:
    """Return the figure, or None and why there is none."""
    for row in rows:
        if (row["what"], row["variant"]) == (target.what, target.variant) and (
            row["kind"] == "kernel" or row["name"] == target.by
        ):
            value = row.get(target.figure)
            why = row["void"] or (row.get("peer") or {}).get("void") or "it was not measured"
            return None if row["void"] else value["median"] if isinstance(value, dict) else value, why
    return None, "it was not run"
