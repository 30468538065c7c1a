"""The picture of a run on a CPU: the time of a training step over width, depth and batch, for every contender."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from ....errors import InputError
from ....storage.atomic import replace_file
from .cases import COMPILE, EAGER, JAX, OURS, REFERENCE

AXES = {
    "width": "units of the two hidden layers (784-n-n-10, batch 256)",
    "depth": "hidden layers of 128 units (784-n x 128-10, batch 128)",
    "batch": "rows of a batch (64-100-100-10)",
}
# Okabe and Ito's colours differ for every kind of colour vision; the marks differ on grey paper too.
STYLES = {
    OURS: ("#0072B2", "o", "-"),
    REFERENCE: ("#56B4E9", "v", ":"),
    EAGER: ("#D55E00", "s", "--"),
    COMPILE: ("#E69F00", "D", "--"),
    JAX: ("#009E73", "^", "-."),
}
NAMES = {OURS: "bnengine", REFERENCE: "bnengine without native kernels"}
INK, GREY, LIGHT = "#1f2428", "#6a737d", "#e4e7ea"
HINT = "install it with: pip install 'bnengine[plot]'"

Curve = list[tuple[int, float]]


def check() -> tuple[Any, Any]:
    """matplotlib's figure and canvas; InputError where it is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"bench: --plot needs matplotlib, which cannot be imported ({error}); {HINT}") from error
    return Figure, FigureCanvasAgg


def curves(rows: Sequence[dict[str, Any]], axis: str) -> dict[str, Curve]:
    """(place on the axis, milliseconds) of each contender that has any, in the order of the places."""
    found: dict[str, Curve] = {name: [] for name in STYLES}
    for row in rows:
        if axis not in row["places"]:
            continue
        times = {OURS: row["ours_ms"], REFERENCE: row["reference_ms"], **row["peers_ms"]}
        for name, curve in found.items():
            if times.get(name):
                curve.append((row["places"][axis], times[name]))
    return {name: sorted(curve) for name, curve in found.items() if curve}


def draw(rows: Sequence[dict[str, Any]], path: str) -> None:
    """Write a PNG with three panels on log axes, from rows as the report has them.

    InputError where matplotlib is missing, no row has a time, or the file cannot be written.
    """
    Figure, Canvas = check()
    panels = {axis: curves(rows, axis) for axis in AXES}
    if not any(panels.values()):
        raise InputError("bench: no training step was timed, so there is nothing to draw; give it more time")
    figure = Figure(figsize=(13.2, 4.6), dpi=120, facecolor="white")
    Canvas(figure)
    places = figure.subplots(1, len(panels))
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.235, top=0.87, wspace=0.2)
    for place, (axis, found) in zip(places, panels.items(), strict=True):
        _panel(place, AXES[axis], found)
    places[0].set_ylabel("milliseconds a training step", color=INK)
    named = {name: line for place in places for line, name in zip(*place.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="lower center", ncols=len(named), frameon=False, labelcolor=INK)
    figure.text(0.055, 0.945, _title(rows), fontsize=11.5, weight="bold", color=INK, va="center", parse_math=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": "bnengine"})
    try:
        replace_file(path, [picture.getvalue()])
    except OSError as error:
        raise InputError(f"bench: {path} cannot be written ({error.strerror}); give --plot a file") from error


def _title(rows: Sequence[dict[str, Any]]) -> str:
    has = rows[0]["environment"]
    return f"A training step with Adam, float32, on {has['threads']} threads of {has['processor'] or has['machine']}"


def _panel(place: Any, label: str, found: dict[str, Curve]) -> None:
    place.set_xscale("log")
    place.set_yscale("log")
    for name, curve in found.items():
        colour, mark, dashes = STYLES[name]
        x, y = zip(*curve, strict=True)
        place.plot(x, y, dashes, color=colour, marker=mark, markersize=5, linewidth=1.8, label=NAMES.get(name, name))
    ticks = sorted({x for curve in found.values() for x, _ in curve})
    place.set_xticks(ticks, [f"{x:,}" for x in ticks])
    place.minorticks_off()
    place.set_xlabel(label, color=INK)
    place.grid(color=LIGHT, linewidth=0.8)
    place.tick_params(colors=GREY, length=0)
    for side in ("top", "right"):
        place.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        place.spines[side].set_color(LIGHT)
