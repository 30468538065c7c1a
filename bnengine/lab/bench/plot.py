"""The picture of a run on a CPU: the time of a training step over width, depth and batch, for every contender."""

from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ..explain.drawing import BLUE, GREEN, INK, ORANGE, SKY, new_figure, panels, png
from .cases import COMPILE, EAGER, JAX, OURS, REFERENCE
from .report import write

AXES = {
    "width": "units of two hidden layers (784-n-n-10, batch 256)",
    "depth": "hidden layers of 128 units (784-n x 128-10, batch 128)",
    "batch": "rows of a batch (64-100-100-10)",
}
# The colors differ for every kind of color vision; the marks differ on gray paper too.
STYLES = {
    OURS: (BLUE, "o", "-"),
    REFERENCE: (SKY, "v", ":"),
    EAGER: (ORANGE, "s", "--"),
    COMPILE: ("#E69F00", "D", "--"),
    JAX: (GREEN, "^", "-."),
}
NAMES = {REFERENCE: "bnengine without native kernels"}
NAME = "bench: --plot"
Curve = list[tuple[int, float]]


def curves(rows: Sequence[dict[str, Any]], axis: str) -> dict[str, Curve]:
    """Return (place on the axis, milliseconds) of each contender that has any, in the order of the places."""
    lines: dict[str, Curve] = {name: [] for name in STYLES}
    for row in rows:
        times = {OURS: row["ours_ms"], REFERENCE: row["reference_ms"], **row["peers_ms"]}
        for name, curve in lines.items():
            if axis in row["places"] and times.get(name):
                curve.append((row["places"][axis], times[name]))
    return {name: sorted(curve) for name, curve in lines.items() if curve}


def draw(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Write a PNG with a panel per axis, from the rows of a report.

    Raises:
        InputError: matplotlib is missing, no row has a time, or the file cannot be written.
    """
    figure, axes = new_figure(where=NAME), {axis: curves(rows, axis) for axis in AXES}
    if not any(axes.values()):
        raise InputError("bench: no training step was timed, so there is nothing to draw; give it more time")
    drawn = panels(figure, list(AXES.values()))
    figure.set_size_inches(13.2, 4.6)
    for panel, lines in zip(drawn, axes.values(), strict=True):
        for name, curve in lines.items():
            color, mark, dashes = STYLES[name]
            x, y = zip(*curve, strict=True)
            panel.loglog(x, y, dashes, color=color, marker=mark, markersize=5, label=NAMES.get(name, name))
        ticks = sorted({x for curve in lines.values() for x, _ in curve})
        panel.set_xticks(ticks, [f"{x:,}" for x in ticks])
        panel.minorticks_off()
    drawn[0].set_ylabel("milliseconds per training step", color=INK)
    named = {name: line for panel in drawn for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=len(named), frameon=False, labelcolor=INK)
    has = rows[0]["environment"]
    title = f"A training step with Adam, float32, on {has['threads']} threads of {has['processor'] or has['machine']}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, weight="bold", color=INK, parse_math=False)
    write(path, png(figure), "--plot")
