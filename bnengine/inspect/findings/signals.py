"""Checks of what passes: inputs, biases, units."""

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
FAR = 3.0
ENOUGH = 100  # rows that can show a unit dead


def cancelled_bias(evidence: Evidence) -> Iterator[Finding]:
    """A bias, or another BatchNorm's beta, that a BatchNorm behind it subtracts again: measured, not told by place.

    Its gradient is sum dz over the rows, which is 0 where the bias cancels. What is left then is rounding: a sum is
    within 10 u sum |terms|, and the terms of dz, of which it has three, dy less its mean less its part along the
    normalised values, are up to some times |dz|: 100 u sum |dz| in all, u the unit of rounding (the most that random
    networks of up to eight layers gave was 4). A bias that counts has about sum |dz| / sqrt(rows), 10,000 times as much
    with float32 and the 256 rows of noise that pass. A warning with optimizers that divide by the gradient's size, and
    so turn rounding into steps; a note with others.
    """
    if not evidence.runs:
        return
    passed, grads = evidence.probed
    unit = UNIT[evidence.network.dtype]
    spread: dict[Parameter, Array] = {}
    for one in passed:
        handle = _shift(one.here)
        if handle is not None and one.dy is not None and not handle.frozen:
            sums = np.abs(one.dy).sum(axis=tuple(range(one.dy.ndim - 1)))
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
        moves = f", which the optimizer makes steps of (the largest is {size:.2g})" if evidence.known.adaptive else ""
        yield Finding(
            "cancelled-bias", "warning" if moves else "note", place, {"units": float(units.max()), "largest": size},
            f"{what} of {int(live.sum())} units cancels in the BatchNorm behind it: its gradient is nothing but "
            f"rounding, {units.max():.1f} u sum |dz| at most{moves}",
            f"{cure}: the same network with {handle.shape[0]} fewer numbers to train",
        )  # fmt: skip


def _shift(here: Placed) -> Parameter | None:
    """What a layer adds to all rows alike."""
    kinds = {Dense: "b", BatchNorm: "beta"}
    handle = next((here.handles().get(name) for kind, name in kinds.items() if isinstance(here.layer, kind)), None)
    return handle if isinstance(handle, Parameter) else None


def uncentred_inputs(evidence: Evidence) -> Iterator[Finding]:
    """Inputs whose mean is large beside their spread: |mean|/std, the root of sum mean^2 over sum var of the features.

    Sums with random weights have the same ratio of mean to standard deviation, and this is what running means must
    follow. When weights turn by a share e a step, the mean moves by e |mean|/std standard deviations, and the average
    lags by d/(1 - d) steps: 9 e |mean|/std with decay 0.9. That is above the average's own noise with batches of 64,
    0.029, from |mean|/std = 3 on for e = 0.1 %, what a learning rate of 0.001 of Adam does to weights of size 1.
    """
    if evidence.x is None or not any(isinstance(s.layer, Dense) for s in evidence.standing):
        return
    x = evidence.x.reshape(-1, evidence.x.shape[-1]).astype(np.float64)
    mean, std = sqrt(np.sum(x.mean(axis=0) ** 2)), sqrt(np.sum(x.var(axis=0)))
    ratio = mean / std if std else float("inf")
    if ratio < FAR:
        return
    yield Finding(
        "uncentred-inputs", "warning", evidence.standing[0].place, {"ratio": ratio, "mean": mean, "std": std},
        f"the inputs are not centred: their mean is {ratio:.3g} times their spread, and running means lag behind it "
        "as the weights move",
        "subtract each feature's mean: --scaling center or standardize; what is trained already helps "
        "bnengine recalibrate RUN DATA",
    )  # fmt: skip


def dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Units behind BN and ReLU that are 0 for every row: nothing passes them, and no gradient comes back.

    With 100 rows of data or more: no row is above 0 in training mode; a unit that is alive in 3/n of all rows is missed
    with 95 %. Without data, for certain: of m values none is further than sqrt(m - 1) biased standard deviations from
    their mean (Samuelson 1968; all others are equal then), so beta <= -|gamma| sqrt(m - 1) is dead in every batch of m.
    A warning from a tenth of the units on, an error for all of them: the network's outputs are then constant.
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
        how = f"in all of {rows:,} rows" if measured else "in every batch, as beta is so far below 0"
        yield Finding(
            "dead-units", severity, norm.place, {"units": dead, "share": dead / channels},
            f"{dead} of {channels} units behind BatchNorm and ReLU are 0 {how}",
            "train anew with a lower learning rate, or with leaky_relu; what is dead does not come back",
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
    known = evidence.known
    if norm.beta is None or not known.batch_size:
        return 0
    most = max(known.batch_size, known.last_batch or 0)  # a row that is left over joins the last batch
    gamma = np.ones(norm.layer.channels) if norm.gamma is None else np.abs(norm.gamma)
    return int(np.sum((norm.beta < 0) & (norm.beta <= -gamma * sqrt(most - 1))))
