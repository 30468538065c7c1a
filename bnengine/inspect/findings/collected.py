"""Checks of the running statistics."""

from collections.abc import Iterator
from math import inf

import numpy as np

from .evidence import Evidence, Norm
from .finding import Finding, Severity

SHORT = 0.1  # of a channel's scale: the noise of a standard deviation taken from 50 rows


def never_collected(evidence: Evidence) -> Iterator[Finding]:
    """Statistics with a count of 0: there is nothing to evaluate by, and mean 0 and variance 1 are made up.

    The threshold is one channel with a count of 0.
    """
    for norm in evidence.norms:
        empty = int(np.sum(norm.statistics[0] == 0))
        if not empty:
            continue
        frozen = norm.layer.statistics.frozen
        yield Finding(
            "statistics-never-collected", "error", norm.place, {"channels": empty},
            f"the running statistics of {empty} of {norm.layer.channels} channels were never collected"
            f"{', as they are frozen' if frozen else ''}; the network cannot be evaluated by them",
            "thaw them by network.thaw('statistics') and train, or recalibrate" if frozen else
            "train, load a trained state, or collect them from data: bnengine recalibrate RUN DATA",
        )  # fmt: skip


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """Statistics or parameters that are inf or NaN, or a variance below 0: the threshold is one value."""
    for norm in evidence.norms:
        count, mean, var = norm.statistics
        bad = int(np.sum(~(np.isfinite(count) & np.isfinite(mean) & np.isfinite(var)) | (var < 0)))
        if bad:
            yield Finding(
                "statistics-not-finite", "error", norm.place, {"channels": bad},
                f"the running mean or variance of {bad} of {norm.layer.channels} channels is inf or NaN, or the "
                "variance is below 0; every output in evaluation is wrong",
                "collect them anew from data without inf or NaN: bnengine recalibrate RUN DATA; go back to an earlier "
                "checkpoint if parameters are not finite either",
            )  # fmt: skip
    for name, values in evidence.values.items():
        if bad := int(np.sum(~np.isfinite(values))):
            yield Finding(
                "parameters-not-finite", "error", name.rsplit(".", 1)[0], {"values": bad},
                f"{bad} of {values.size} values of {name} are inf or NaN",
                "go back to an earlier checkpoint, and train with a lower learning rate or with --clip-norm 1",
            )  # fmt: skip


def decay_slow(evidence: Evidence) -> Iterator[Finding]:
    """A running average that still holds its start, mean 0 and variance 1.

    After t steps decay^t of the weight is on the start, which puts the running mean off by decay^t |mean| and the
    variance by decay^t |1 - var|. A warning where decay^t is above the average's own noise, sqrt((1 - d)/((1 + d) m))
    in standard deviations, so that with a mean one standard deviation off 0 the start is the larger of the two errors;
    an error where it is half or more: the statistics are then more made up than measured. Looked at only where the
    count of rows is that of the steps, and no variance is below decay^t, the start's share in it: statistics that were
    recalibrated hold no start.
    """
    known = evidence.known
    for norm in evidence.norms:
        decay, steps = norm.layer.decay, _steps(evidence, norm)
        if not norm.collected or decay is None or steps is None:
            continue
        left, noise = decay**steps, known.noise(decay)
        if left <= noise or np.any(norm.statistics[2] < 0.999 * left):
            continue
        mean, var = norm.statistics[1] / (1 - left), np.maximum(norm.statistics[2] - left, 0) / (1 - left)
        eps = norm.layer.eps
        off = float(left * np.sqrt(np.mean(mean**2 / (var + eps))))
        scale = float(np.exp(np.mean(np.abs(np.log((norm.statistics[2] + eps) / (var + eps)))) / 2) - 1)
        numbers = {"decay": decay, "steps": steps, "left": left, "noise": noise, "mean_off": off, "scale_off": scale}
        yield Finding(
            "decay-slow", "error" if left >= 0.5 else "warning", norm.place, numbers,
            f"after {steps} steps {left:.1%} of the running statistics is still their start, mean 0 and variance 1 "
            f"(decay {decay:g}): means are off by about {off:.2g} standard deviations of their channels, and these by "
            f"about {scale:.0%}",
            f"bnengine recalibrate RUN DATA; or train with a decay of {_quicker(steps, noise):.2g} at most, or longer",
        )  # fmt: skip


def _steps(evidence: Evidence, norm: Norm) -> int | None:
    """How many steps moved the layer's running average; None where that is not known, or others made it."""
    known, count = evidence.known, float(np.min(norm.statistics[0]))
    if known.recalibrated:
        return None
    if known.steps is None:
        return round(count / (known.batch_size * known.accumulate)) if known.batch_size else None
    full = None if known.batch_size is None else float(known.batch_size * known.accumulate)
    a_step = known.rows_a_step or full
    agrees = a_step is None or 0.8 * known.steps * a_step <= count <= 1.25 * known.steps * a_step
    return known.steps if agrees else None


def _quicker(steps: int, noise: float) -> float:
    """The decay whose start is down to the noise after so many steps."""
    return float(noise ** (1 / max(steps, 1)))


def variance_small(evidence: Evidence) -> Iterator[Finding]:
    """Variances so near eps that eps, not the batch, sets the scale.

    A normalised channel has the standard deviation sqrt(var/(var + eps)), not 1. Named where it falls short by 10 % or
    more, var <= 4.3 eps: 10 % is the noise of a standard deviation taken from 50 rows, 1/sqrt(2 m), which training
    stands in every step. An error where it is so in all channels.
    """
    for norm in evidence.norms:
        if not norm.collected:
            continue
        eps, var = norm.layer.eps, np.maximum(norm.statistics[2], 0)
        std = np.sqrt(var / (var + eps))
        few = int(np.sum(std <= 1 - SHORT))
        if not few:
            continue
        numbers = {"channels": few, "least_variance": float(var.min()), "eps": eps, "least_std": float(std.min())}
        yield Finding(
            "variance-near-eps", "error" if few == len(var) else "warning", norm.place, numbers,
            f"the variance of {few} of {len(var)} channels is near eps {eps:g} or below it (the least is "
            f"{var.min():.2g}): their normalised values have standard deviations down to {std.min():.2g}, not 1",
            "constant inputs can be left out; else scale the inputs up (--scaling standardize), draw larger weights, "
            f"or take an eps of {_small(var, eps):.0e}",
        )  # fmt: skip


def _small(var: np.ndarray, eps: float) -> float:
    """An eps of a hundredth of the least variance that is not 0."""
    least = float(var[var > 0].min(initial=inf))
    return min(least, eps) / 100


def dead_gamma(evidence: Evidence) -> Iterator[Finding]:
    """Channels whose gamma leaves nothing of them.

    Behind gamma a channel has the standard deviation |gamma|. Dead is one of at most 2^-8 of its layer's root mean
    square: in the next layer's sums the rounding of a typical partner in bfloat16, 2^-8, is larger. An error where all
    of a layer's gamma are 0 and the network was trained: its outputs are beta, whatever the input.
    """
    for norm in evidence.norms:
        if norm.gamma is None or not np.isfinite(norm.gamma).all():
            continue
        size = np.abs(norm.gamma)
        typical = float(np.sqrt(np.mean(size**2)))
        dead = int(np.sum(size <= 2.0**-8 * typical))
        if not dead or (typical == 0 and not norm.collected):
            continue
        severity: Severity = "error" if typical == 0 else _by_share(dead, len(size))
        yield Finding(
            "dead-gamma", severity, norm.place, {"channels": dead, "share": dead / len(size), "typical": typical},
            f"gamma of {dead} of {len(size)} channels is 0, or next to it beside the others' {typical:.2g}: whatever "
            "enters there, beta comes out",
            "leave weight decay off gamma and begin with gamma 1; where it is meant so, a narrower layer does the same",
        )  # fmt: skip


def _by_share(dead: int, channels: int) -> Severity:
    return "warning" if dead >= 0.1 * channels else "note"
