"""The activations of a run's layers over its steps, if the run recorded them: percentiles and moments."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..._typing import Array
from ..explain.drawing import BLUE, SKY, named_curve, new_figure, panels, png
from .page import Page

PICTURED = 3  # layers: the first, one in the middle, the last
BANDS = ("p85", SKY), ("p50", BLUE), ("p15", SKY)
Layers = dict[str, dict[str, Array]]


def distributions(page: Page, records: Sequence[Mapping[str, Any]]) -> None:
    """Add a section with the percentiles, and a table of the first and the last sample, if there are two or more."""
    steps, layers = collected(records)
    if len(steps) < 2:
        return
    page.section("Activations over time", "distributions")
    places = list(layers)
    shown = [places[round(i * (len(places) - 1) / (PICTURED - 1))] for i in range(PICTURED)]
    shown = list(dict.fromkeys(shown))
    page.picture(
        _picture(steps, layers, shown), "The 15th, 50th and 85th percentile of the layers' outputs, over the steps",
        _picture(steps, layers, shown, stacked=True),
    )  # fmt: skip
    page.paragraph(
        f"Taken on {len(steps)} steps, {steps[0]:,} to {steps[-1]:,}, over all units of a layer together; a dead unit "
        "has the same value in every row. From the first sample to the last:"
    )
    names = ("mean", "std", "skewness", "kurtosis", "dead")
    rows = [
        (place, *(f"{layers[place][name][0]:.3g} to {layers[place][name][-1]:.3g}" for name in names))
        for place in places
    ]
    page.table("distributions", ("layer", *names), rows, numbers=(1, 2, 3, 4, 5), wide=())


def collected(records: Sequence[Mapping[str, Any]]) -> tuple[list[int], Layers]:
    """Return the steps of all samples of a run, and the figures of each layer, in the network's order."""
    steps: list[int] = []
    figures_of: dict[str, dict[str, list[float]]] = {}
    for record in records:
        sampled = record.get("activations")
        if not sampled:
            continue
        steps += sampled["steps"]
        for place, figures in sampled["layers"].items():
            for name, values in figures.items():
                figures_of.setdefault(place, {}).setdefault(name, []).extend(values)
    whole = {place: each for place, each in figures_of.items() if all(len(v) == len(steps) for v in each.values())}
    order = sorted(whole, key=lambda place: [int(part) if part.isdigit() else -1 for part in place.split(".")])
    return steps, {
        place: {name: np.asarray([np.nan if v is None else v for v in values], float)
                for name, values in whole[place].items()}
        for place in order
    }  # fmt: skip


def _picture(steps: Sequence[int], layers: Layers, shown: Sequence[str], *, stacked: bool = False) -> bytes:
    figure = new_figure(stacked)
    for panel, place in zip(panels(figure, [f"Layer {place}" for place in shown]), shown, strict=True):
        for name, color in BANDS:
            named_curve(panel, np.asarray(steps) + 1, layers[place][name], f"{name[1:]}%", color)
        panel.set_xscale("log")
        panel.set_xlabel("step", fontsize=9)
    return png(figure)
