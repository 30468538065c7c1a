"""The look of the experiments' pictures: few lines, colours that every eye tells apart, labels at the curves' ends."""

from io import BytesIO
from typing import Any

from ..errors import InputError

# Okabe and Ito's colours differ for every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK, GREY, LIGHT = "#1f2428", "#6a737d", "#e4e7ea"
WIDTH, HEIGHT = 4.8, 3.4  # inches of a panel


def new_figure() -> Any:
    """A white matplotlib figure; `panels` settles its width. InputError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            f"explain: matplotlib cannot be imported ({error}); install it with: pip install 'bnengine[plot]'"
        ) from error
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Any, titles: list[str]) -> list[Any]:
    """Axes beside each other, each under its title, without a frame."""
    figure.set_size_inches(WIDTH * len(titles) if len(titles) > 1 else 1.5 * WIDTH, HEIGHT)
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10.5, color=INK, parse_math=False)
        panel.grid(axis="y", color=LIGHT, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(which="both", length=0, labelsize=8.5, labelcolor=GREY)
        for side in ("left", "right", "top"):
            panel.spines[side].set_visible(False)
        panel.spines["bottom"].set_color("#b6bcc2")
    return list(axes)


def named_curve(panel: Any, x: Any, y: Any, name: str, colour: str, **style: Any) -> None:
    """A curve with its name at its last point, where a reader looks for it."""
    panel.plot(x, y, color=colour, linewidth=1.8, **style)
    panel.annotate(
        name, (x[-1], y[-1]), (4, 0), textcoords="offset points", color=colour, fontsize=8.5, va="center",
        annotation_clip=False, parse_math=False,
    )  # fmt: skip


def png(figure: Any) -> bytes:
    """The picture; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "bnengine"})
    return buffer.getvalue()
