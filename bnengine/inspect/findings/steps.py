"""Checks of how a network was trained: weight decay, and batches."""

from collections.abc import Iterator
from math import exp, log, sqrt

import numpy as np

from ...layers import Dense
from ...runtime.flat import Parameter
from .evidence import Evidence
from .finding import Finding

INVARIANT = 0.01
RATE, MOST = 1.1, 1000.0  # changes of the effective learning rate: the least that counts, the most that is told


def decay_on_affine(evidence: Evidence) -> Iterator[Finding]:
    """Weight decay on gamma or beta, which pulls a channel's scale to 0 though no weight grows less for it.

    Steps of rates lr_t and decay w shrink a value to exp(-w sum lr_t) where nothing opposes, with a momentum that
    gathers gradients to exp(-w sum lr_t / (1 - momentum)): so for SGD and AdamW, and by more for L2 in Adam and RMSprop
    as long as gradients are below 1. Named where the loss is above the noise that each batch's own standard deviation
    puts on the scale, 1/sqrt(2 m): less than that is not seen. Which parameters decay was on is told by a checkpoint of
    the training, since layers that are built anew from it have their own defaults again; without one by the network
    itself.
    """
    known = evidence.known
    decay = known.weight_decay
    if not decay or known.travelled is None:
        return
    lost, noise = 1 - exp(-known.shrunk), 1 / sqrt(2 * (known.batch_size or 64))
    for norm in evidence.norms:
        own = {"gamma": norm.layer.gamma, "beta": norm.layer.beta}
        decayed = [
            kind for kind, handle in own.items()
            if handle is not None and not handle.frozen and _decays(evidence, handle)
        ]  # fmt: skip
        if decayed and lost > noise:
            yield Finding(
                "decay-on-affine", "warning", norm.place, {"weight_decay": decay, "lost": lost, "noise": noise},
                f"weight decay {decay:g} is on {' and '.join(decayed)}: it took about {lost:.0%} of what nothing "
                "opposed",
                "keep the decay to weights: Parameter(..., decays=False), as BatchNorm's are unless that was changed",
            )  # fmt: skip


def _decays(evidence: Evidence, handle: Parameter) -> bool:
    told = evidence.known.decayed
    return handle.decays if told is None else evidence.names[handle] in told


def effective_rate(evidence: Evidence) -> Iterator[Finding]:
    """Weight decay on weights whose length no output depends on: it sets the learning rate, and regularises nothing.

    BN(c W) = BN(W), so a gradient stands at right angles to its weights and the step that counts is lr/|w|^2 for
    gradient descent and lr sqrt(n)/|w| where an optimizer divides by the gradient's size (van Laarhoven 2017), both
    over 1 - momentum where one gathers gradients.
    Measured: the cosine of w and dw is at most 1 % in every unit, which a variance of 100 eps leaves; others have about
    1/sqrt(n). Named where decay has shrunk lengths enough, as in `decay_on_affine`, to raise the effective rate by a
    tenth: less is below what a learning rate is ever tuned to.
    """
    known = evidence.known
    decay, rate = known.weight_decay, known.learning_rate
    if not decay or not rate or known.travelled is None or not evidence.runs:
        return
    power = 1 if known.adaptive else 2
    raised = exp(min(power * known.shrunk, log(MOST)))
    if raised < RATE:
        return
    for name, place in _invariant(evidence):
        length = np.sqrt(np.sum(evidence.values[name] ** 2, axis=0))
        inputs = evidence.values[name].shape[0]
        typical = float(np.sqrt(np.mean(length**2)))
        effective = known.gathered * rate * (1 / typical**2 if power == 2 else sqrt(inputs) / typical)
        numbers = {"weight_decay": decay, "length": typical, "effective_rate": effective, "raised": raised}
        yield Finding(
            "effective-learning-rate", "note", place, numbers,
            f"weight decay {decay:g} is on weights whose length does not matter, as BatchNorm divides by it: all it "
            f"does is to raise the effective learning rate, {'more than ' if raised >= MOST else ''}{raised:.3g} times "
            f"where no gradient opposes it; with units of length {typical:.3g} and a peak of {rate:g} it is "
            f"{effective:.3g}",
            "nothing need be done; to change the strength of it, change the learning rate, not the decay",
        )  # fmt: skip


def _invariant(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """The weights of Dense layers that the loss depends on by their direction only: (name, place)."""
    _, grads = evidence.probed
    for standing in evidence.standing:
        layer = standing.layer
        if not isinstance(layer, Dense) or layer.W.frozen or not _decays(evidence, layer.W):
            continue
        name = evidence.names[layer.W]
        W, dW = evidence.values[name], grads[name]
        along, size = np.abs((W * dW).sum(axis=0)), np.sqrt((W**2).sum(axis=0) * (dW**2).sum(axis=0))
        live = size > 0
        if live.any() and np.all(along[live] <= INVARIANT * size[live]):
            yield name, standing.place


def batches_small(evidence: Evidence) -> Iterator[Finding]:
    """Batches, or a last batch of each epoch, too small for batch statistics.

    BN takes the mean and the scale out of m values, so m - 2 of m directions of a channel's gradient are left: nothing
    with two rows, where every normalised value is 1 or -1, and half with four. Named with four rows or fewer; an error
    where every batch has two, as nothing before the first BatchNorm can be learnt.
    """
    known = evidence.known
    size, last = known.batch_size, known.last_batch
    if not evidence.norms or not size or any(norm.layer.statistics.use_running for norm in evidence.norms):
        return
    if size <= 4:
        yield Finding(
            "batches-small", "error" if size <= 2 else "warning", "", {"batch_size": size, "left": _left(size)},
            f"batches of {size} rows leave {_left(size):.0%} of the gradient that passes a BatchNorm",
            "--batch-size 32 or more; more rows at once help here, accumulating small batches does not",
        )  # fmt: skip
    elif last is not None and last <= 4:
        numbers = {"rows": last, "batch_size": size, "left": _left(last)}
        yield Finding(
            "last-batch-small", "warning", "", numbers,
            f"the last batch of every epoch has {last} rows of {size}: it leaves {_left(last):.0%} of the gradient "
            "that passes a BatchNorm, and counts in the running statistics like a full one",
            f"a batch size that leaves a larger rest of {known.rows} rows, or none: --batch-size "
            f"{_better(known.rows, size)}",
        )  # fmt: skip


def _left(rows: int) -> float:
    return max(rows - 2, 0) / rows


def _better(rows: int | None, size: int) -> int:
    """The next larger batch size whose last batch has at least half as many rows, or none."""
    assert rows is not None
    sizes = range(size + 1, rows + 1)
    return next((n for n in sizes if rows % n == 0 or 2 * (rows % n) >= n), rows)
