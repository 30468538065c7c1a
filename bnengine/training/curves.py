"""Plot a training: loss and accuracy (or another metric) of training and validation over the epochs."""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isfinite
from typing import Any

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..metrics import facts_of
from ..storage.atomic import replace_file

# Blue and vermilion of Okabe and Ito, which color-blind readers can distinguish; the dashes differ in print, too.
_TRAIN, _VALID = ("Training", "#0072B2", (0, (5, 1.6))), ("Validation", "#D55E00", "-")
_INK, _GREY, _LIGHT = "#1f2428", "#6a737d", "#e4e7ea"
_HINT = "Install it with: pip install 'bnengine[plot]'"


def draw(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str = "") -> None:
    """Write a PNG with two panels, the loss and the first other metric, over the epochs counted from 1.

    Args:
        records: one mapping an epoch, with "train_loss", and optionally "valid_loss", "train_accuracy",
            "valid_accuracy" or another metric's "train_..." and "valid_...", and "epoch", counted from 0. A value that
            is missing, None or not finite leaves a gap.
        path: the PNG; it is replaced atomically.
        title: a line above the panels.

    Raises:
        InputError: matplotlib is not installed, or no record has a finite loss or metric.
        OSError: the file cannot be written.
    """
    replace_file(path, [picture(records, title)])


def picture(records: Sequence[Mapping[str, Any]], title: str = "", *, stacked: bool = False) -> bytes:
    """Return the PNG that `draw` writes; `stacked` puts one panel below the other. Raises the same InputError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"curves: matplotlib cannot be imported ({error}). {_HINT}.") from error
    metrics = _metrics(records)
    across, down = (1, len(metrics)) if stacked else (len(metrics), 1)
    size = (4.8, 3.6 * down) if stacked else (5.2 * across + 0.4, 4.0)
    figure = Figure(figsize=size, dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    epochs = np.asarray([float(r.get("epoch", i)) + 1 for i, r in enumerate(records)])
    panels = figure.subplots(down, across, squeeze=False).ravel()
    width = figure.get_figwidth()
    top = 1 - (0.20 if title else 0.12) / down
    figure.subplots_adjust(
        left=0.72 / width, right=1 - 0.98 / width, bottom=0.135 / down, top=top, wspace=0.46, hspace=0.34
    )
    for panel, metric in zip(panels, metrics, strict=True):
        _panel(panel, epochs, metric, [_values(records, f"{part}_{metric}") for part in ("train", "valid")])
    heading: dict[str, Any] = {"fontsize": 12.5, "weight": "bold", "color": _INK, "va": "center", "parse_math": False}
    figure.text(0.72 / width, 1 - 0.06 / down, title, **heading)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "bnengine"})
    return buffer.getvalue()


def _metrics(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the panels: the loss, and the first other metric with a finite value."""
    names: dict[str, None] = {}
    for record in records:
        for key, value in record.items():
            part, _, name = key.partition("_")
            if part in ("train", "valid") and name and _finite(value):
                names[name] = None
    others = [name for name in names if name != "loss"]
    others.sort(key=lambda name: name != "accuracy")
    panels = [name for name in ("loss", *others[:1]) if name in names]
    if not panels:
        raise InputError(
            f"curves: none of the {len(records)} records has a finite train_loss or valid_loss. Train first."
        )
    return panels


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _values(records: Sequence[Mapping[str, Any]], name: str) -> Array:
    return np.asarray([float(r[name]) if _finite(r.get(name)) else np.nan for r in records])


def _panel(panel: Any, epochs: Array, metric: str, curves: list[Array]) -> None:
    percent = facts_of(metric).percent
    curves = [100 * values if percent else values for values in curves]
    drawn = [
        (style, values) for style, values in zip((_TRAIN, _VALID), curves, strict=True) if np.isfinite(values).any()
    ]
    for number, ((_, color, dashes), values) in enumerate(drawn):
        few = {"marker": "o", "markersize": 4} if np.isfinite(values).sum() < 12 else {}
        panel.plot(epochs, values, color=color, linestyle=dashes, linewidth=1.9, zorder=3 + number, **few)
    _scale(panel, percent, np.concatenate([values[np.isfinite(values)] for _, values in drawn]))
    _axes(panel, epochs, metric, percent)
    higher = facts_of(metric).higher_is_better
    if higher is not None and np.isfinite(curves[1]).any():
        _best(panel, epochs, curves[1], higher, percent)
    _labels(panel, epochs, drawn)


def _scale(panel: Any, percent: bool, values: Array) -> None:
    """Set the y axis: logarithmic for a loss that spans a wide range; for an accuracy, close to the curves' ends."""
    low, high = float(values.min()), float(values.max())
    if percent:
        low = float(np.quantile(values, 0.1)) if len(values) >= 10 else low
        room = max((high - low) * 0.12, 0.5)
        low = max(low - room, 0.0)
        panel.set_ylim(low, min(high + room, 100 + 0.03 * (100 - low)))
    elif low > 0 and high / low > 8:
        panel.set_yscale("log")
        panel.set_ylim(low / 1.25, high * 1.25)
    else:
        room = max((high - low) * 0.1, 1e-3 * abs(high), 1e-12)
        panel.set_ylim(low - room, high + room)


def _axes(panel: Any, epochs: Array, metric: str, percent: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    first, last = float(epochs.min()), float(epochs.max())
    room = max((last - first) * 0.02, 0.5 if first == last else 0.0)
    panel.set_xlim(first - min(room, 0.9), last + room)  # epochs start at 1: no tick at 0
    panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if panel.get_yscale() == "log":
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_minor_locator(LogLocator(subs=()))
    else:
        panel.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    unit = " %" if percent else ""
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.6g}{unit}"))
    label = facts_of(metric).label
    heading = label[0].upper() + label[1:] + (" (log scale)" if panel.get_yscale() == "log" else "")
    panel.set_title(heading, loc="left", fontsize=11, color=_INK, pad=10)
    panel.set_xlabel("Epoch", fontsize=9.5, color=_GREY)
    panel.grid(axis="y", color=_LIGHT, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(which="both", length=0, labelsize=9, labelcolor=_GREY, pad=5)
    for side in ("left", "right", "top"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color("#b6bcc2")


def _best(panel: Any, epochs: Array, values: Array, higher: bool, percent: bool) -> None:
    """Draw a ring around the best validation value; write value and epoch at the panel's upper right."""
    place = int(np.nanargmax(values) if higher else np.nanargmin(values))
    figure = f"{values[place]:.2f} %" if percent else f"{values[place]:.4g}"
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "white", "markeredgecolor": _VALID[1]}
    panel.plot(epochs[place], values[place], **ring, markeredgewidth=1.9, zorder=9, clip_on=False)
    text = f"○ best {figure}, epoch {epochs[place]:.0f}"
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "baseline"}
    panel.annotate(text, (1, 1), (0, 10), **above, fontsize=9, color=_VALID[1])  # in line with the panel's heading


def _labels(panel: Any, epochs: Array, drawn: list[tuple[tuple[str, str, Any], Array]]) -> None:
    """Write each curve's name at its end, moved apart if two curves end close together."""
    to_axes = panel.transData + panel.transAxes.inverted()
    ends: list[tuple[float, str, str]] = []
    for (name, color, _), values in drawn:
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        height = float(to_axes.transform((epochs[last], values[last]))[1])
        ends.append((min(max(height, 0.0), 1.0), name, color))
    ends.sort(key=lambda end: end[0])
    if len(ends) == 2 and ends[1][0] - ends[0][0] < 0.075:
        middle = (ends[0][0] + ends[1][0]) / 2
        ends = [(middle + side * 0.0375, *end[1:]) for side, end in zip((-1, 1), ends, strict=True)]
    for height, name, color in ends:
        panel.text(1.02, height, name, transform=panel.transAxes, color=color, fontsize=9.5, va="center", ha="left")
