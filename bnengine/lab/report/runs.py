"""The report of `bnengine report`: the metrics of a run, its network, and the state of its batch normalization."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from ...inspect.findings import Finding
from ...inspect.gap import Gap
from ...layers import BatchNorm, walk
from ...network.sequential import Sequential
from ...network.summary import HEADER, layer_rows, totals
from ...training import curves
from .distributions import distributions
from .folder import FIGURES, PAGE, STATISTICS, as_csv
from .page import Link, Mark, Page, Tone

NEAR = 10  # variance over eps: below it, normalized values have less than sqrt(10/11) = 95 % of unit deviation
NOT_FIGURES = ("epoch", "steps", "seconds", "samples_per_second")
Record = Mapping[str, Any]
Tables = Mapping[str, Mapping[str, Any]]
TONES: dict[str, Tone] = {"error": "no", "warning": "part", "note": "open"}


class Inspected(NamedTuple):
    """What `bnengine.inspect` finds: the doctor's findings, the gap on `data`, and why the run's data were not used."""

    findings: Sequence[Finding]
    gap: Gap | None
    data: str
    left_out: str


class Layer(NamedTuple):
    """A BatchNorm of a network, with its running statistics, gamma and beta on the host, float64, (channels,)."""

    name: str
    eps: float
    seen: float
    mean: Array
    var: Array
    gamma: Array
    beta: Array

    @property
    def near_eps(self) -> int:
        """Channels whose variance is below 10 eps: eps takes more than 5 % off their normalized deviation."""
        return int(np.sum(self.var < NEAR * self.eps))


def run_report(
    folder: Path, network: Sequential, tables: Tables, records: Sequence[Record], inspected: Inspected
) -> dict[str, str]:
    """Return the files of a run's report by name: the page, the metrics and the statistics of every BatchNorm as CSV.

    Args:
        folder: of the run.
        network: the trained network.
        tables: of config.toml, by name.
        records: the lines of metrics.jsonl.
        inspected: the findings of `bnengine.inspect`.

    Raises:
        InputError: matplotlib or jinja2 is missing.
    """
    layers = batch_norms(network)
    return {
        PAGE: page(folder, network, tables, records, layers, inspected).html(),
        FIGURES: as_csv(("epoch", "figure", "value"), _metrics(records)),
        STATISTICS: as_csv(("layer", "channel", "quantity", "value"), _channels(layers)),
    }


def batch_norms(network: Sequential) -> list[Layer]:
    """Return every BatchNorm of the network with its numbers, in order."""
    state, layers = network.state_dict(), []
    for place, layer in walk(network.layers):
        if not isinstance(layer, BatchNorm):
            continue
        mean = np.asarray(state[f"{place}.running_mean"], np.float64)
        gamma, beta = (state.get(f"{place}.{name}", np.full(mean.shape, usual)) for name, usual in _USUAL)
        var, count = (np.asarray(state[f"{place}.running_{name}"], np.float64) for name in ("var", "count"))
        numbers = np.asarray(gamma, np.float64), np.asarray(beta, np.float64)
        layers.append(Layer(place, layer.eps, float(count.max()), mean, var, *numbers))
    return layers


_USUAL = (("gamma", 1.0), ("beta", 0.0))


def page(
    folder: Path, network: Sequential, tables: Tables, records: Sequence[Record], layers: Sequence[Layer],
    inspected: Inspected,
) -> Page:  # fmt: skip
    """Return the page of a run."""
    data = tables.get("data", {}).get("path", "")
    whole = Page(f"The run {folder.resolve().name}", f"{len(records)} epochs on {data}; {totals(network)[0]}.")
    _curves(whole, records)
    distributions(whole, records)
    _findings(whole, inspected)
    _gap(whole, inspected)
    whole.section("The network", "network")
    whole.table("the layers", HEADER, layer_rows(network), numbers=(2, 3, 4), wide=(1,))
    for sentence in totals(network)[1:]:
        whole.paragraph(f"{sentence[0].upper()}{sentence[1:]}.")
    _statistics(whole, layers)
    _settings(whole, tables)
    whole.section("The numbers")
    files = [
        (Link(FIGURES, FIGURES), "every figure of every epoch"),
        (Link(STATISTICS, STATISTICS), "running statistics, gamma and beta of every channel"),
    ]
    whole.table("files", ("file", "holds"), files)
    return whole


def _curves(page: Page, records: Sequence[Record]) -> None:
    page.section("Curves", "curves")
    drawable = any(_finite(r.get(f"{part}_loss")) for r in records for part in ("train", "valid"))
    if not drawable:
        page.paragraph("No epoch ended with a finite loss: there is nothing to draw.")
        return
    description = "Loss, and accuracy or another metric, of training and validation in each epoch"
    page.picture(curves.picture(records), description, curves.picture(records, stacked=True))
    names = [name for name in records[-1] if name not in NOT_FIGURES and _finite(records[-1][name])]
    rows = [(name.replace("_", " "), f"{records[-1][name]:.5g}", *_best(records, name)) for name in names]
    page.table("figures", ("figure", "last epoch", "smallest", "largest"), rows, numbers=(1, 2, 3))


def _best(records: Sequence[Record], name: str) -> tuple[str, str]:
    values = [float(r[name]) for r in records if _finite(r.get(name))]
    return f"{min(values):.5g}", f"{max(values):.5g}"


def _findings(page: Page, inspected: Inspected) -> None:
    page.section("Findings of the doctor", "doctor")
    if inspected.left_out:
        page.paragraph(f"The run's data were not used ({inspected.left_out}).")
    if not inspected.findings:
        page.paragraph("Nothing is wrong with the batch normalization, according to the checks.")
        return
    rows = [
        (Mark(finding.severity, TONES[finding.severity]), finding.id, finding.layer or "-", finding.says, finding.cure)
        for finding in inspected.findings
    ]
    page.table(
        "findings", ("", "finding", "layer", "what is wrong", "cure"), rows, wide=(3, 4), cards=True, named=(2, 4)
    )


def _gap(page: Page, inspected: Inspected) -> None:
    gap = inspected.gap
    if gap is None:
        return
    healthy = gap.cause == "none"
    mark = Mark("no gap" if healthy else gap.cause, "yes" if healthy else "part")
    page.section("Training and evaluation", "gap", mark)
    page.paragraph(f"{gap.why[0].upper()}{gap.why[1:]}.")
    page.paragraph(f"{gap.cure[0].upper()}{gap.cure[1:]}.", "Cure.")
    rows = [(kind, part, f"{score.loss:.4g}", "-" if score.accuracy is None else f"{score.accuracy:.2%}")
            for (part, kind), score in gap.scores.items()]  # fmt: skip
    page.paragraph(f"The training rows, and the data {inspected.data}, evaluated with each kind of statistics:")
    page.table("scores", ("statistics", "rows", "loss", "accuracy"), rows, numbers=(2, 3))
    page.paragraph(
        "Errors of the running statistics, compared with the exact ones of the training rows: means in sigma, sigma in "
        "percent. Also how many batches they remember, and the weight of their initial value:"
    )
    header = ("layer", "steps", "remembered", "on initial", "means off", "sigma off")
    layers = [
        (layer.name, f"{layer.steps:,.0f}", f"{layer.remembered:.1f}", f"{layer.initial:.2g}",
         f"{layer.running.mean:.3f}", f"{layer.running.std:.1%}")
        for layer in gap.layers
    ]  # fmt: skip
    page.table("running statistics", header, layers, numbers=(1, 2, 3, 4, 5), wide=())


def _statistics(page: Page, layers: Sequence[Layer]) -> None:
    page.section("Batch normalization by layer", "statistics")
    if not layers:
        page.paragraph("The network has no BatchNorm.")
        return
    page.paragraph(
        "The running mean and deviation of each layer's inputs, from the smallest to the largest channel. A channel is "
        f"near eps if its variance is below {NEAR} eps: it hardly varies, and eps takes more than 5 % off its "
        "normalized deviation."
    )
    header = ("layer", "channels", "mean", "deviation", "near eps", "|gamma|", "beta")
    rows = [
        (each.name, str(len(each.mean)), _range(each.mean), _range(np.sqrt(each.var)), str(each.near_eps),
         _range(np.abs(each.gamma)), _range(each.beta))
        for each in layers
    ]  # fmt: skip
    page.table("statistics of each BatchNorm", header, rows, numbers=(1, 2, 3, 4, 5, 6), wide=())
    unseen = [each.name for each in layers if each.seen == 0]
    if unseen:
        page.paragraph(f"{', '.join(unseen)} has collected no statistics: evaluation raises an error there.")


def _settings(page: Page, tables: Tables) -> None:
    page.section("Settings", "settings")
    if not tables:
        page.paragraph("The model's folder has no config.toml.")
        return
    rows = [
        (section, name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for section, values in tables.items()
        for name, value in values.items()
        if value not in ("", [])
    ]
    page.table("settings", ("table", "setting", "value"), rows, wide=(2,))


def _range(values: Array) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _metrics(records: Sequence[Record]) -> Iterator[tuple[object, ...]]:
    for number, record in enumerate(records):
        for name, value in record.items():
            if name != "epoch" and _finite(value):
                yield record.get("epoch", number), name, value


def _channels(layers: Sequence[Layer]) -> Iterator[tuple[object, ...]]:
    for layer in layers:
        for quantity in ("mean", "var", "gamma", "beta"):
            for channel, value in enumerate(getattr(layer, quantity).tolist()):
                yield layer.name, channel, quantity, value
