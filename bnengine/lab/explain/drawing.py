"""The style of the pictures: few lines, colors for every kind of color vision, names at the ends of curves."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from ...errors import InputError

# Okabe and Ito's colors differ for every kind of color vision.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, GRAY, LIGHT = "#1f2428", "#6a737d", "#e4e7ea"
WIDTH, HEIGHT, NARROW = 4.8, 3.4, 4.4  # inches of one of two panels, and its width on a narrow screen
APART = 10.5  # points from one curve's name to the next
_END = "end of a curve"


def new_figure(stacked: bool = False, where: str = "explain") -> Any:
    """A white matplotlib figure; `panels` sets its size, and stacks the panels for a narrow screen.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            f"{where}: matplotlib cannot be imported ({error}). Install it: pip install 'bnengine[plot]'."
        ) from error
    figure: Any = Figure(figsize=(WIDTH, HEIGHT), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.stacked = stacked
    return figure


def panels(figure: Any, titles: list[str]) -> list[Any]:
    """Frameless axes with titles, side by side, or below each other if the figure is stacked."""
    if figure.stacked:
        figure.set_size_inches(NARROW, HEIGHT * len(titles))
        axes = figure.subplots(len(titles), 1, squeeze=False)[:, 0]
    else:
        figure.set_size_inches(WIDTH * {1: 1.5, 2: 2.0}.get(len(titles), 2.2), HEIGHT)
        axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
        panel.grid(axis="y", color=LIGHT, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(which="both", length=0, labelsize=8.5, labelcolor=GRAY)
        for side in ("left", "right", "top"):
            panel.spines[side].set_visible(False)
        panel.spines["bottom"].set_color("#b6bcc2")
    return list(axes)


def named_curve(panel: Any, x: Any, y: Any, name: str, color: str, **style: Any) -> None:
    """A curve with its name at its last point; `png` moves overlapping names apart."""
    panel.plot(x, y, color=color, linewidth=1.8, **style)
    panel.annotate(
        name, (x[-1], y[-1]), (4, 0), textcoords="offset points", color=color, fontsize=8.5, va="center",
        annotation_clip=False, parse_math=False, gid=_END,
    )  # fmt: skip


def points_and_mean(
    panel: Any, place: float, values: Sequence[float], color: str, half_width: float, name: str | None = None
) -> None:
    """A point for each value above `place`, and a bar at their mean; `name` is its entry in the legend."""
    panel.scatter([place] * len(values), values, color=color, s=12, alpha=0.6)
    mean = sum(values) / len(values)
    panel.hlines(mean, place - half_width, place + half_width, color=color, linewidth=2, label=name)


def legend_below(figure: Any, panel: Any) -> None:
    """The panel's legend below all panels: in a row, or in a column if stacked."""
    handles, names = panel.get_legend_handles_labels()
    look = {"fontsize": 8.5, "frameon": False, "labelcolor": INK, "handlelength": 1.2, "columnspacing": 1.6}
    figure.legend(handles, names, loc="outside lower left", ncols=1 if figure.stacked else len(names), **look)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Move heights apart to a distance of at least `least`, in order, each colliding group about its mean."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _low(groups[-1], heights, least) < _high(groups[-2], heights, least) + least:
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = [0.0] * len(heights)
    for group in groups:
        low = _low(group, heights, least)
        for place, i in enumerate(group):
            moved[i] = low + place * least
    return moved


def _low(group: list[int], heights: Sequence[float], least: float) -> float:
    return sum(heights[i] for i in group) / len(group) - (len(group) - 1) * least / 2


def _high(group: list[int], heights: Sequence[float], least: float) -> float:
    return _low(group, heights, least) + (len(group) - 1) * least


def png(figure: Any) -> bytes:
    """The picture as PNG; the same figure gives the same bytes."""
    figure.draw_without_rendering()  # computes the positions of the axes
    points = 72 / figure.dpi
    for panel in figure.axes:
        names = [text for text in panel.texts if text.get_gid() == _END]
        heights = [points * float(panel.transData.transform(name.xy)[1]) for name in names]
        for name, height, moved in zip(names, heights, apart(heights, APART), strict=True):
            name.xyann = (4, moved - height)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "bnengine"})
    return buffer.getvalue()
