"""Checks of signals: inputs, biases, units."""

from collections.abc import Iterator
from math import sqrt

import numpy as np

from ..._typing import Array
from ...layers import BatchNorm, Dense, Placed
from ...runtime.flat import Parameter
from .evidence import Evidence, Norm
from .finding import Finding, Severity

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
ROUNDING = 100.0  # in u sum |dz|
FAR = 3.0  # |mean| / std of inputs
ENOUGH = 100  # rows that can prove a unit dead


def cancelled_bias(evidence: Evidence) -> Iterator[Finding]:
    """A bias, or the beta of another BatchNorm, that the next BatchNorm subtracts: measured, not inferred.

    Its gradient is sum dz over the rows, which is 0 if the bias cancels. What remains is rounding: a sum is within 10 u
    sum |terms|, and the three terms of dz (dy, its mean, its part along the normalized values) are some times |dz|: 100
    u sum |dz| in all, u the unit of rounding (random networks of up to eight layers gave at most 4). A bias that counts
    has about sum |dz| / sqrt(rows), 10,000 times as much in float32 with the 256 rows of noise. A warning with
    optimizers that divide by the gradient's size, and so turn rounding into steps; a note with others.
    """
    if not evidence.runs:
        return
    traces, grads = evidence.probed
    unit = UNIT[evidence.network.dtype]
    spread: dict[Parameter, Array] = {}
    for traced in traces:
        handle = _shift(traced.here)
        if handle is not None and traced.dy is not None and not handle.frozen:
            sums = np.abs(traced.dy).sum(axis=tuple(range(traced.dy.ndim - 1)))
            spread[handle] = spread.get(handle, 0.0) + sums
    for handle, sums in spread.items():
        name = evidence.names[handle]
        live = sums > 0
        units = np.abs(grads[name][live]) / (unit * sums[live])
        if not live.any() or units.max() > ROUNDING:
            continue
        place, kind = name.rsplit(".", 1)
        what, cure = (
            ("the bias", "Dense(..., bias='auto') or bias=False")
            if kind == "b"
            else ("beta", "BatchNorm(..., beta=False)")
        )
        size = float(np.abs(evidence.values[name]).max())
        moves = (
            f", which the optimizer turns into steps (the largest value is {size:.2g})"
            if evidence.facts.adaptive
            else ""
        )
        yield Finding(
            "cancelled-bias", "warning" if moves else "note", place, {"units": float(units.max()), "largest": size},
            f"{what} of {int(live.sum())} units cancels in the next BatchNorm: its gradient is only rounding, at "
            f"most {units.max():.1f} u sum |dz|{moves}",
            f"{cure}: the same network with {handle.shape[0]} fewer numbers to train",
        )  # fmt: skip


def _shift(here: Placed) -> Parameter | None:
    """The parameter that a layer adds to all rows."""
    kinds = {Dense: "b", BatchNorm: "beta"}
    handle = next((here.handles().get(name) for kind, name in kinds.items() if isinstance(here.layer, kind)), None)
    return handle if isinstance(handle, Parameter) else None


def uncentered_inputs(evidence: Evidence) -> Iterator[Finding]:
    """Inputs with a large mean: |mean|/std, the root of sum mean^2 over sum var of the features, is 3 or more.

    Sums with random weights have the same ratio of mean to standard deviation, and running means must follow it. If
    weights turn by a share e a step, the mean moves by e |mean|/std standard deviations, and the average lags by
    d/(1 - d) steps: 9 e |mean|/std with decay 0.9. That exceeds the average's own noise with batches of 64, 0.029, from
    |mean|/std = 3 on for e = 0.1 %, the effect of a learning rate of 0.001 of Adam on weights of size 1.
    """
    if evidence.x is None or not any(isinstance(s.layer, Dense) for s in evidence.layers):
        return
    x = evidence.x.reshape(-1, evidence.x.shape[-1]).astype(np.float64)
    mean, std = sqrt(np.sum(x.mean(axis=0) ** 2)), sqrt(np.sum(x.var(axis=0)))
    ratio = mean / std if std else float("inf")
    if ratio < FAR:
        return
    yield Finding(
        "uncentred-inputs", "warning", evidence.layers[0].place, {"ratio": ratio, "mean": mean, "std": std},
        f"the inputs are not centered: their mean is {ratio:.3g} times their spread, and running means lag as the "
        "weights move",
        "subtract each feature's mean: --scaling center or standardize; for a trained network "
        "bnengine recalibrate RUN DATA",
    )  # fmt: skip


def dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Units after BN and ReLU that are 0 for every row: they pass no signal and no gradient.

    With 100 rows of data or more: no row is above 0 in training mode; a unit that is alive in 3/n of all rows is missed
    with a probability of 5 %. Without data, by a proof: of m values none is further than sqrt(m - 1) biased standard
    deviations from their mean (Samuelson 1968), so beta <= -|gamma| sqrt(m - 1) is dead in every batch of m. A warning
    from a tenth of the units on, an error for all of them: the outputs of the network are then constant.
    """
    for norm in evidence.norms:
        if norm.activation != "relu":
            continue
        measured = evidence.x is not None and len(evidence.x) >= ENOUGH and evidence.runs
        dead = _silent(evidence, norm) if measured else _certain(evidence, norm)
        if not dead:
            continue
        channels = norm.layer.channels
        severity: Severity = "error" if dead == channels else "warning" if dead >= 0.1 * channels else "note"
        rows = 0 if evidence.x is None else len(evidence.x)
        how = f"in all of {rows:,} rows" if measured else "in every batch, since beta is far below 0"
        yield Finding(
            "dead-units", severity, norm.place, {"units": dead, "share": dead / channels},
            f"{dead} of {channels} units after BatchNorm and ReLU are 0 {how}",
            "train again with a lower learning rate, or with leaky_relu; dead units do not recover",
        )  # fmt: skip


def _silent(evidence: Evidence, norm: Norm) -> int:
    name = evidence.names[norm.layer.statistics]
    outputs = [
        p.y
        for p in evidence.seen
        if isinstance(p.here.layer, BatchNorm) and evidence.names[p.here.layer.statistics] == name
    ]
    alive = [np.any(y > 0, axis=tuple(range(y.ndim - 1))) for y in outputs]
    return int(np.sum(~np.any(alive, axis=0)))


def _certain(evidence: Evidence, norm: Norm) -> int:
    facts = evidence.facts
    if norm.beta is None or not facts.batch_size:
        return 0
    most = max(facts.batch_size, facts.last_batch or 0)  # a single remaining row joins the last batch
    gamma = np.ones(norm.layer.channels) if norm.gamma is None else np.abs(norm.gamma)
    return int(np.sum((norm.beta < 0) & (norm.beta <= -gamma * sqrt(most - 1))))
