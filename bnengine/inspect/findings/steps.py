"""Checks of how a network was trained: weight decay, and batches."""

from collections.abc import Iterator
from math import exp, log, sqrt

import numpy as np

from ...layers import Dense
from ...runtime.flat import Parameter
from .evidence import Evidence
from .finding import Finding

INVARIANT = 0.01
RATE, MOST = 1.1, 1000.0  # factors on the effective learning rate: the least that counts, the most that is printed


def decay_on_affine(evidence: Evidence) -> Iterator[Finding]:
    """Weight decay on gamma or beta, which pulls a channel's scale to 0 without limiting any weight.

    Steps of rates lr_t and decay w shrink a value without gradients to exp(-w sum lr_t), with a momentum that
    accumulates gradients to exp(-w sum lr_t / (1 - momentum)): for SGD and AdamW, and by more for L2 in Adam and
    RMSprop with gradients below 1. Reported if the loss exceeds the noise of each batch's standard deviation on the
    scale, 1/sqrt(2 m). A checkpoint of the training records which parameters decay; without one the network does.
    """
    facts = evidence.facts
    decay = facts.weight_decay
    if not decay or facts.travelled is None:
        return
    lost, noise = 1 - exp(-facts.shrunk), 1 / sqrt(2 * (facts.batch_size or 64))
    for norm in evidence.norms:
        affine = {"gamma": norm.layer.gamma, "beta": norm.layer.beta}
        decayed = [
            kind for kind, handle in affine.items()
            if handle is not None and not handle.frozen and _decays(evidence, handle)
        ]  # fmt: skip
        if decayed and lost > noise:
            yield Finding(
                "decay-on-affine", "warning", norm.place, {"weight_decay": decay, "lost": lost, "noise": noise},
                f"weight decay {decay:g} is on {' and '.join(decayed)}: it removed about {lost:.0%} of a value "
                "without gradients",
                "use decay on weights only: Parameter(..., decays=False), the default of BatchNorm",
            )  # fmt: skip


def _decays(evidence: Evidence, handle: Parameter) -> bool:
    recorded = evidence.facts.decayed
    return handle.decays if recorded is None else evidence.names[handle] in recorded


def effective_rate(evidence: Evidence) -> Iterator[Finding]:
    """Weight decay on weights whose length does not affect the output: it sets the learning rate alone.

    BN(c W) = BN(W), so a gradient is at right angles to its weights, and the effective step is lr/|w|^2 for gradient
    descent and lr sqrt(n)/|w| for an optimizer that divides by the gradient's size (van Laarhoven 2017), both over 1 -
    momentum for one that accumulates gradients. Measured: the cosine of w and dw is at most 1 % in every unit, which a
    variance of 100 eps leaves; other weights have about 1/sqrt(n). Reported if decay has shrunk lengths enough, as in
    `decay_on_affine`, to raise the effective rate by a tenth, finer than a learning rate is tuned.
    """
    facts = evidence.facts
    decay, rate = facts.weight_decay, facts.learning_rate
    if not decay or not rate or facts.travelled is None or not evidence.runs:
        return
    power = 1 if facts.adaptive else 2
    raised = exp(min(power * facts.shrunk, log(MOST)))
    if raised < RATE:
        return
    for name, place in _invariant(evidence):
        length = np.sqrt(np.sum(evidence.values[name] ** 2, axis=0))
        inputs = evidence.values[name].shape[0]
        typical = float(np.sqrt(np.mean(length**2)))
        effective = facts.gathered * rate * (1 / typical**2 if power == 2 else sqrt(inputs) / typical)
        numbers = {"weight_decay": decay, "length": typical, "effective_rate": effective, "raised": raised}
        yield Finding(
            "effective-learning-rate", "note", place, numbers,
            f"weight decay {decay:g} is on weights whose length does not matter, since BatchNorm divides by it: it "
            f"only raises the effective learning rate, {'more than ' if raised >= MOST else ''}{raised:.3g} times "
            f"without gradients; with units of length {typical:.3g} and a peak of {rate:g} it is "
            f"{effective:.3g}",
            "none needed; to change the effect, change the learning rate, not the decay",
        )  # fmt: skip


def _invariant(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """The weights of Dense layers whose direction alone affects the loss: (name, place)."""
    _, grads = evidence.probed
    for placed in evidence.layers:
        layer = placed.layer
        if not isinstance(layer, Dense) or layer.W.frozen or not _decays(evidence, layer.W):
            continue
        name = evidence.names[layer.W]
        W, dW = evidence.values[name], grads[name]
        along, size = np.abs((W * dW).sum(axis=0)), np.sqrt((W**2).sum(axis=0) * (dW**2).sum(axis=0))
        live = size > 0
        if live.any() and np.all(along[live] <= INVARIANT * size[live]):
            yield name, placed.place


def batches_small(evidence: Evidence) -> Iterator[Finding]:
    """Batches, or a last batch of each epoch, too small for batch statistics.

    BN removes the mean and the scale of m values, so m - 2 of m directions of a channel's gradient remain: none with
    two rows, whose normalized values are always 1 and -1, and half with four. Reported with four rows or fewer; an
    error if every batch has two, since layers before the first BatchNorm cannot learn.
    """
    facts = evidence.facts
    size, last = facts.batch_size, facts.last_batch
    if not evidence.norms or not size or any(norm.layer.statistics.use_running for norm in evidence.norms):
        return
    if size <= 4:
        yield Finding(
            "batches-small", "error" if size <= 2 else "warning", "", {"batch_size": size, "left": _left(size)},
            f"batches of {size} rows leave {_left(size):.0%} of the gradient that passes a BatchNorm",
            "--batch-size 32 or more; accumulating small batches does not help",
        )  # fmt: skip
    elif last is not None and last <= 4:
        numbers = {"rows": last, "batch_size": size, "left": _left(last)}
        yield Finding(
            "last-batch-small", "warning", "", numbers,
            f"the last batch of every epoch has {last} rows of {size}: it leaves {_left(last):.0%} of the gradient "
            "that passes a BatchNorm, and counts in the running statistics like a full one",
            f"a batch size with a larger last batch of {facts.rows} rows, or none: --batch-size "
            f"{_better(facts.rows, size)}",
        )  # fmt: skip


def _left(rows: int) -> float:
    return max(rows - 2, 0) / rows


def _better(rows: int | None, size: int) -> int:
    """The next larger batch size whose last batch is at least half full, or full."""
    assert rows is not None
    sizes = range(size + 1, rows + 1)
    return next((n for n in sizes if rows % n == 0 or 2 * (rows % n) >= n), rows)
