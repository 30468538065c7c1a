"""Checks of the running statistics."""

from collections.abc import Iterator
from math import inf

import numpy as np

from .evidence import Evidence, Norm
from .finding import Finding, Severity

SHORT = 0.1  # of a channel's scale: the noise of a standard deviation of 50 rows


def never_collected(evidence: Evidence) -> Iterator[Finding]:
    """Statistics with a count of 0: evaluation has only the arbitrary mean 0 and variance 1.

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
            f"{', since they are frozen' if frozen else ''}; the network cannot be evaluated with them",
            "thaw them with network.thaw('statistics') and train, or recalibrate" if frozen else
            "train, load a trained state, or collect them from data: bnengine recalibrate RUN DATA",
        )  # fmt: skip


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """Statistics or parameters that are inf or NaN, or a variance below 0. The threshold is one value."""
    for norm in evidence.norms:
        count, mean, var = norm.statistics
        bad = int(np.sum(~(np.isfinite(count) & np.isfinite(mean) & np.isfinite(var)) | (var < 0)))
        if bad:
            yield Finding(
                "statistics-not-finite", "error", norm.place, {"channels": bad},
                f"the running mean or variance of {bad} of {norm.layer.channels} channels is inf or NaN, or the "
                "variance is below 0; every output in evaluation is wrong",
                "collect them again from finite data: bnengine recalibrate RUN DATA; if parameters are not finite "
                "either, return to an earlier checkpoint",
            )  # fmt: skip
    for name, values in evidence.values.items():
        if bad := int(np.sum(~np.isfinite(values))):
            yield Finding(
                "parameters-not-finite", "error", name.rsplit(".", 1)[0], {"values": bad},
                f"{bad} of {values.size} values of {name} are inf or NaN",
                "return to an earlier checkpoint, and train with a lower learning rate or with --clip-norm 1",
            )  # fmt: skip


def decay_slow(evidence: Evidence) -> Iterator[Finding]:
    """A running average that still contains its start, mean 0 and variance 1.

    After t steps the start has a weight of decay^t, which puts the running mean off by decay^t |mean| and the variance
    by decay^t |1 - var|. A warning if decay^t is above the noise of the average, sqrt((1 - d)/((1 + d) m)) in standard
    deviations: for a mean one standard deviation from 0 the start is then the larger of the two errors. An error if it
    is half or more. Checked only if the count of rows is that of the steps, and no variance is below decay^t, the share
    of the start in it: recalibrated statistics contain no start.
    """
    facts = evidence.facts
    for norm in evidence.norms:
        decay, steps = norm.layer.decay, _steps(evidence, norm)
        if not norm.collected or decay is None or steps is None:
            continue
        left, noise = decay**steps, facts.noise(decay)
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
            f"(decay {decay:g}): means are off by about {off:.2g} standard deviations of their channels, standard "
            f"deviations by about {scale:.0%}",
            f"bnengine recalibrate RUN DATA; or train with a decay of {_quicker(steps, noise):.2g} at most, or longer",
        )  # fmt: skip


def _steps(evidence: Evidence, norm: Norm) -> int | None:
    """The steps of the layer's running average; None if unknown, or if it does not come from training."""
    facts, count = evidence.facts, float(np.min(norm.statistics[0]))
    if facts.recalibrated:
        return None
    if facts.steps is None:
        return round(count / (facts.batch_size * facts.accumulate)) if facts.batch_size else None
    full = None if facts.batch_size is None else float(facts.batch_size * facts.accumulate)
    a_step = facts.rows_a_step or full
    agrees = a_step is None or 0.8 * facts.steps * a_step <= count <= 1.25 * facts.steps * a_step
    return facts.steps if agrees else None


def _quicker(steps: int, noise: float) -> float:
    """The decay that reduces the start to the noise in that many steps."""
    return float(noise ** (1 / max(steps, 1)))


def variance_small(evidence: Evidence) -> Iterator[Finding]:
    """Variances so near eps that eps, not the batch, sets the scale.

    A normalized channel has the standard deviation sqrt(var/(var + eps)), not 1. Reported if it is 10 % short or more,
    var <= 4.3 eps: 10 % is the noise of a standard deviation of 50 rows, 1/sqrt(2 m), which training tolerates in every
    step. An error if all channels are.
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
            f"{var.min():.2g}): their normalized values have standard deviations down to {std.min():.2g}, not 1",
            "leave constant inputs out; else scale the inputs up (--scaling standardize), draw larger weights, "
            f"or take an eps of {_small(var, eps):.0e}",
        )  # fmt: skip


def _small(var: np.ndarray, eps: float) -> float:
    """An eps of a hundredth of the least variance above 0."""
    least = float(var[var > 0].min(initial=inf))
    return min(least, eps) / 100


def dead_gamma(evidence: Evidence) -> Iterator[Finding]:
    """Channels that gamma reduces to nothing.

    After gamma a channel has the standard deviation |gamma|. It is dead at 2^-8 of the root mean square of its layer or
    less: in the sums of the next layer the rounding of a typical channel in bfloat16, 2^-8, is larger. An error if all
    gamma of a layer are 0 and the network was trained: its outputs are beta, whatever the input.
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
            f"gamma of {dead} of {len(size)} channels is 0, or negligible compared with the others' {typical:.2g}: "
            "their output is beta, whatever the input",
            "use no weight decay on gamma and begin with gamma 1; if it is intended, a narrower layer does the same",
        )  # fmt: skip


def _by_share(dead: int, channels: int) -> Severity:
    return "warning" if dead >= 0.1 * channels else "note"
