"""Checks of the order of layers, and of their settings."""

from collections.abc import Iterator
from math import sqrt

from ...layers import BatchNorm, Dropout
from .evidence import Evidence, is_identity
from .finding import Finding

# (eps, running variance): the framework with these defaults; those of torch are ours
DEFAULTS = {
    (1e-3, "biased"): ("keras", "Keras's"),
    (1e-5, "biased"): ("flax", "Flax's"),
    (1e-3, "unbiased"): ("tf", "TensorFlow 1's"),
    (2e-5, "unbiased"): ("chainer", "Chainer's"),
}


def norm_on_output(evidence: Evidence) -> Iterator[Finding]:
    """A BatchNorm after the last layer with weights.

    Its outputs have mean beta and standard deviation |gamma| in every batch, whatever the targets are. An error without
    gamma and beta: outputs of mean 0 and standard deviation 1 can be neither confident nor rare.
    """
    last = next((s for s in reversed(evidence.layers) if not is_identity(s.layer) and not _shape(s.layer)), None)
    if last is None or not isinstance(last.layer, BatchNorm):
        return
    free = last.layer.gamma is not None and last.layer.beta is not None
    yield Finding(
        "norm-on-output", "warning" if free else "error", last.place, {"channels": last.layer.channels},
        "BatchNorm comes after the last layer: each output has the same mean and spread in every batch, whatever the "
        f"targets are{'' if free else ', and without gamma and beta these are 0 and 1'}",
        "end the network with Dense, without a BatchNorm after it",
    )  # fmt: skip


def _shape(layer: object) -> bool:
    """Whether a layer is an activation, which may follow the last layer."""
    return hasattr(layer, "kind")


def dropout_before_norm(evidence: Evidence) -> Iterator[Finding]:
    """Dropout before a BatchNorm: the variance in training is not the one in evaluation.

    Kept values are divided by 1 - p, so a channel of mean mu and variance v has the variance (v + p mu^2)/(1 - p) in
    training, and v in evaluation: its normalized values shrink to sqrt(1 - p) or less (Li et al. 2019). Reported if the
    shrinking exceeds the noise of a running standard deviation, sqrt((1 - d)/((1 + d) m))/sqrt(2): p above 0.04 with
    decay 0.9 and 64 rows.
    """
    for i, (place, layer) in enumerate((s.place, s.layer) for s in evidence.layers):
        after = evidence.follows(i)
        if not isinstance(layer, Dropout) or not isinstance(after, BatchNorm):
            continue
        shrinks, noise = 1 - sqrt(1 - layer.rate), evidence.facts.noise(after.decay) / sqrt(2)
        if shrinks <= noise:
            continue
        yield Finding(
            "dropout-before-norm", "warning", place, {"rate": layer.rate, "shrinks": shrinks, "noise": noise},
            f"dropout of {layer.rate:g} right before BatchNorm: the variance in evaluation is not the one of training, "
            f"and normalized values shrink by {shrinks:.1%} or more there",
            "move Dropout after BatchNorm and its activation",
        )  # fmt: skip


def other_convention(evidence: Evidence) -> Iterator[Finding]:
    """Layers with the eps and the running variance that another framework has by default.

    The threshold is equality with a default in `BatchNorm.from_convention`'s table. A warning if layers of one network
    differ: their weights were trained with one of the defaults.
    """
    places_of: dict[tuple[str, str], list[str]] = {}
    for norm in evidence.norms:
        default = DEFAULTS.get((norm.layer.eps, norm.layer.variance), ("", ""))
        places_of.setdefault(default, []).append(norm.place)
    for (name, whose), places in places_of.items():
        if not name:
            continue
        layer = next(norm.layer for norm in evidence.norms if norm.place == places[0])
        mixed = len(places_of) > 1
        yield Finding(
            "other-convention", "warning" if mixed else "note", ", ".join(places),
            {"eps": layer.eps, "unbiased": float(layer.variance == "unbiased"), "layers": len(places)},
            f"eps {layer.eps:g} and the {layer.variance} running variance are {whose} defaults"
            f"{', and other layers have others' if mixed else ''}",
            f"none for weights from there; else BatchNorm(...) without them, or BatchNorm.from_convention({name!r}, "
            f"channels) for all layers of a network with {whose} defaults",
        )  # fmt: skip


def decay_swapped(evidence: Evidence) -> Iterator[Finding]:
    """A decay that looks like the momentum of another library, the share of the *new* value.

    The average remembers (1 + d)/(1 - d) batches: 19 with 0.9, and 3 or fewer from 0.5 down, so that running statistics
    are hardly better than those of the last batch. The threshold is 0.5, at which the two shares are equal.
    """
    for norm in evidence.norms:
        decay = norm.layer.decay
        if decay is None or decay > 0.5:
            continue
        batches = (1 + decay) / (1 - decay)
        yield Finding(
            "decay-swapped", "warning", norm.place, {"decay": decay, "batches": batches},
            f"decay {decay:g} is the share of the old value that a step keeps, so the running statistics remember "
            f"{batches:.1f} batches",
            f"decay={1 - decay:g}, if this is PyTorch's momentum={decay:g}, the share of the new value",
        )  # fmt: skip
