"""Targets for an H200 and what was measured, as a table for the guide on speed: `python -m tests.gpu.table` prints it.

The figures are those of the newest tests/benchmarks/results/*-bench.json of such a device.
"""

import json
from pathlib import Path
from typing import Any

from bnengine.lab.bench.targets import DEVICE, TARGETS, Target
from tests.gpu.__main__ import RESULTS

HEADER = (f"on an {DEVICE}, by `make gpu-bench`", "target", "measured")
NOT_YET = "not yet measured"
OF = {"share": " of the copy bandwidth", "ratio": " x {}", "host_seconds": " of the host a step"}


def newest(folder: Path = RESULTS) -> list[dict[str, Any]] | None:
    """The targets as the newest benchmark on such a device judged them; None if there was none."""
    found = []
    for path in folder.glob("*-bench.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        results = [part["result"] for part in report["parts"] if part["part"] == "bench" and "result" in part]
        if results and DEVICE in (report["device"] or "") and not report["simulated"]:
            found.append((report["began"], results[0]["targets"]))
    return max(found, key=lambda one: one[0])[1] if found else None


def shown(figure: str, value: float) -> str:
    """A share in percent, a ratio, or microseconds."""
    if figure == "share":
        return f"{100 * value:.0f} %"
    return f"{value:.3g}" if figure == "ratio" else f"{value * 1e6:.3g} µs"


def lines(judged: list[dict[str, Any]] | None) -> list[tuple[str, ...]]:
    """The cells of each line. Targets of one figure, aim and variants share it; `judged`: as `newest` gives them."""
    groups: dict[tuple[Any, ...], list[Target]] = {}
    for target in TARGETS:
        groups.setdefault(key(target), []).append(target)
    return [
        (named(group), f"{sense} {shown(figure, value)}{of}", measured(group, judged))
        for (figure, sense, value, of, _), group in groups.items()
    ]


def key(target: Target) -> tuple[Any, ...]:
    same = [t for t in TARGETS if (t.what, t.figure, t.by) == (target.what, target.figure, target.by)]
    of = OF[target.figure].format(target.by)
    return target.figure, target.sense, target.value, of, tuple(t.variant for t in same)


def named(targets: list[Target]) -> str:
    """Whats and variants, each once."""
    whats, variants = (list(dict.fromkeys(t[i] for t in targets)) for i in (0, 1))
    return f"{'; '.join(whats)}; {', '.join(variants)}"


def measured(targets: list[Target], judged: list[dict[str, Any]] | None) -> str:
    """The figures in the order of the targets, in bold where they fall short; and why there is none."""
    if judged is None:
        return NOT_YET
    figures = []
    for target in targets:
        row = next(j for j in judged if all(j[name] == value for name, value in target._asdict().items()))
        figure = None if row["measured"] is None else shown(target.figure, row["measured"])
        figures.append(f"none ({row['why']})" if figure is None else figure if row["reached"] else f"**{figure}**")
    return ", ".join(figures)


def table(judged: list[dict[str, Any]] | None) -> str:
    """The table in Markdown."""
    rows = [HEADER, ("---",) * len(HEADER), *lines(judged)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table(newest()))
