"""Every op once more, from the formulas of its docstring, plainly and in NumPy's longest floating type."""

import math
from typing import Any

import numpy as np

from bnengine.ops.update import RULES
from tests import activations
from tests.activations import LONG
from tests.optimizers import FORMULAS

MASK = 0xFFFFFFFF


def long(value: Any) -> Any:
    """Floating arrays in the longest type; everything else unchanged."""
    if isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":
        value = value.astype(np.float32)
    return value.astype(LONG) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def rows(x):
    return x.reshape(-1, x.shape[-1])


def value_of(z, kind, slope=None):
    oracle = activations.ORACLES[kind]
    return oracle.value(z, oracle.slope if slope is None else slope)


def slope_of(kind, slope, y, z):
    """g'(z), from y where that does."""
    oracle = activations.ORACLES[kind]
    slope = oracle.slope if slope is None else slope
    return oracle.derivative(z, slope) if oracle.of_y is None else oracle.of_y(y, slope)


# -- pointwise, dense -------------------------------------------------------------------------------------------------


def activation(x, *, kind, slope=None):
    return {"out": value_of(x, kind, slope)}


def activation_backward(dy, x, y, *, kind, slope=None):
    return {"out": dy * slope_of(kind, slope, y, x)}


def total(a, b):
    return {"out": a + b}


def affine(x, W, b=None, *, activation="identity", slope=None):
    z = np.einsum("...i,io->...o", x, W)
    return {"out": value_of(z if b is None else z + b, activation, slope)}


def affine_backward(
    dy, x, W, y, *,
    activation="identity", slope=None, input_gradient=True, bias_gradient=True,
):  # fmt: skip
    dz = dy * slope_of(activation, slope, y, None)
    dx = np.einsum("...o,io->...i", dz, W) if input_gradient else None
    db = rows(dz).sum(0) if bias_gradient else None
    return {"dx": dx, "dW": np.einsum("ri,ro->io", rows(x), rows(dz)), "db": db}


# -- batch normalization ----------------------------------------------------------------------------------------------


def moments(x):
    x = rows(x)
    n = x.shape[0]
    mean = sum(x) / n
    batch = np.stack([np.full_like(mean, n), mean, sum((x - mean) ** 2) / n])
    return {"batch": batch, "pending": batch}


def merge(a, b):
    merged = np.array(a)
    for c in range(a.shape[1]):
        na, nb = a[0, c], b[0, c]
        if na + nb == 0 or nb == 0:
            continue
        mean = (na * a[1, c] + nb * b[1, c]) / (na + nb)
        var = (na * (a[2, c] + (a[1, c] - mean) ** 2) + nb * (b[2, c] + (b[1, c] - mean) ** 2)) / (na + nb)
        merged[:, c] = na + nb, mean, var
    return {"out": merged}


def commit(running, pending, ok, decay, unbiased):
    new = np.array(running)
    for c in range(running.shape[1]):
        n, mean, var = pending[:, c]
        if not ok[0] or n == 0:
            continue
        if decay[c] == -1:
            new[:, c] = merge(running[:, [c]], pending[:, [c]])["out"][:, 0]
            continue
        if unbiased[c] and n > 1:
            var = var * n / (n - 1)
        new[0, c] = running[0, c] + n
        new[1, c] = decay[c] * running[1, c] + (1 - decay[c]) * mean
        new[2, c] = decay[c] * running[2, c] + (1 - decay[c]) * var
    return {"out": new}


def normalize(x, statistics, gamma, beta, add=None, *, eps=1e-5, activation="identity", slope=None):
    return {"out": value_of(sum_of(x, statistics, gamma, beta, add, eps), activation, slope)}


def sum_of(x, statistics, gamma, beta, add, eps):
    z = (x - statistics[1]) / np.sqrt(statistics[2] + eps)
    z = z if gamma is None else gamma * z
    z = z if beta is None else z + beta
    return z if add is None else z + add


def batch_norm(x, gamma, beta, add=None, *, eps=1e-5, activation="identity", slope=None):
    found = moments(x)
    z = sum_of(x, found["batch"], gamma, beta, add, eps)
    return {"y": value_of(z, activation, slope), **found}


def normalize_backward(
    dy, x, y, statistics, gamma, beta, add=None, *, eps=1e-5, activation="identity", slope=None, batch_statistics=True
):
    dz = dy * slope_of(activation, slope, y, sum_of(x, statistics, gamma, beta, add, eps))
    inv_std = 1 / np.sqrt(statistics[2] + eps)
    x_norm = (x - statistics[1]) * inv_std
    dx_norm = dz if gamma is None else dz * gamma
    if batch_statistics:  # through x itself, through the variance and through the mean
        axes = tuple(range(x.ndim - 1))
        m = x.size // x.shape[-1]
        dvar = -0.5 * (dx_norm * x_norm).sum(axes) * inv_std**2
        dmean = -dx_norm.sum(axes) * inv_std
        dx = dx_norm * inv_std + dvar * 2 * (x - statistics[1]) / m + dmean / m
    else:
        dx = dx_norm * inv_std
    return {
        "dx": dx,
        "dadd": None if add is None else dz,
        "dgamma": None if gamma is None else rows(dz * x_norm).sum(0),
        "dbeta": None if beta is None else rows(dz).sum(0),
    }


# -- dropout ----------------------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al. (2011), on Python's integers or arrays of uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def keep(seed, layer, step, samples, features, rate):
    key = seed & MASK, seed >> 32
    packs, samples = np.arange(-(-features // 4), dtype=np.uint64), np.asarray(samples, np.uint64)[:, None]
    words = np.stack(np.broadcast_arrays(*philox((packs, samples, step, layer), key)), axis=-1)
    return words.reshape(len(samples), -1)[:, :features] / 2**32 >= rate


def dropout(x, step, samples, *, seed, layer, rate):
    mask = keep(seed, layer, int(step[0]), samples, math.prod(x.shape[1:]), rate).reshape(x.shape)
    return {"out": mask * x / (1 - LONG(rate)), "keep": mask}


def dropout_backward(dy, keep, *, rate):
    return {"out": keep * dy / (1 - LONG(rate))}


# -- losses -----------------------------------------------------------------------------------------------------------


def softmax_cross_entropy(
    logits, target, class_weights=None, sample_weights=None, *, divisor, label_smoothing=0.0, scale=1
):
    classes = logits.shape[-1]
    t = (target[..., None] == np.arange(classes)).astype(LONG) if target.dtype.kind == "i" else target
    t = (1 - LONG(label_smoothing)) * t + LONG(label_smoothing) / classes
    c = np.ones(classes) if class_weights is None else class_weights
    v = np.ones(logits.shape[:-1]) if sample_weights is None else sample_weights
    top = logits.max(-1, keepdims=True)
    log_q = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    value = -(v[..., None] * c * t * log_q).sum() / divisor
    dlogits = v[..., None] * (np.exp(log_q) * (c * t).sum(-1, keepdims=True) - c * t) / divisor
    return {"value": value.reshape(1), "dlogits": scale * dlogits}


def binary_cross_entropy(logits, target, sample_weights=None, *, divisor, scale=1):
    v = 1 if sample_weights is None else sample_weights[..., None]
    surprise = target * np.logaddexp(0, -logits) + (1 - target) * np.logaddexp(0, logits)
    return {
        "value": (v * surprise).sum().reshape(1) / divisor,
        "dlogits": scale * v * (1 / (1 + np.exp(-logits)) - target) / divisor,
    }


def mean_squared_error(prediction, target, sample_weights=None, *, divisor, scale=1):
    v = 1 if sample_weights is None else sample_weights[..., None]
    error = prediction - target
    return {"value": (v * error * error).sum().reshape(1) / divisor, "dlogits": scale * 2 * v * error / divisor}


# -- the end of a step ------------------------------------------------------------------------------------------------


def check_step(loss, gradients, pending, scaling=None, *, clip=None, growth=2.0, backoff=0.5, every=2000):
    finite = all(math.isfinite(v) for a in (loss, gradients, pending) for v in a.ravel())
    scale = LONG(1) if scaling is None else scaling[0]
    norm = np.sqrt((gradients**2).sum()).reshape(1) / scale
    factor = (np.ones(1) if clip is None or norm[0] <= clip else clip / norm) / scale
    found = {"ok": np.asarray([finite]), "norm": norm, "factor": factor, "scaling": None}
    if scaling is None:
        return found
    good, in_a_row, longest = scaling[1:]
    overflown = math.isfinite(loss[0]) and np.isfinite(pending).all() and not np.isfinite(gradients).all()
    if finite:
        good, in_a_row = good + 1, 0
        if good >= every:
            scale, good = scale * growth, 0
    else:
        in_a_row += not (overflown and scale > 1)
        if overflown:
            scale, good = scale * backoff, 0
    scale = min(max(scale, LONG(2.0**-24)), LONG(2.0**64))
    return found | {"scaling": np.asarray([scale, good, in_a_row, max(longest, in_a_row)])}


def count_step(counters, ok, cursor=None, *, rows=0):
    steps, row, skipped, in_a_row, longest = counters.tolist()
    moved = None if cursor is None else np.asarray([cursor[0] + rows, cursor[1] + 1])
    if ok[0]:
        return {"counters": np.asarray([steps + 1, row + 1, skipped, 0, longest]), "cursor": moved}
    counted = np.asarray([steps, row, skipped + 1, in_a_row + 1, max(longest, in_a_row + 1)])
    return {"counters": counted, "cursor": moved}


def gather(x, target, weights, samples, divisors, order, cursor, *, rows, offset=0):
    chosen = [order[int(cursor[0]) + offset + i] for i in range(rows)]
    taken = {"x": x, "target": target, "weights": weights, "samples": samples}
    out = {name: None if a is None else np.stack([a[i] for i in chosen]) for name, a in taken.items()}
    return out | {"divisor": divisors[int(cursor[1])].reshape(1)}


def gather_raw(
    x, target, weights, samples, divisors, order, cursor, mean=None, inv_scale=None, *, rows, offset=0
):  # fmt: skip
    x = np.stack([x[i] for i in samples])
    out = gather(x, target, weights, samples, divisors, order, cursor, rows=rows, offset=offset)
    return out if mean is None else out | {"x": (out["x"].astype(np.longdouble) - mean) * inv_scale}


def rule_oracle(rule):
    """The op of a rule by the formula of the table; what is frozen, and everything in a skipped step, stays."""

    def update(*args, decay_end, weight_decay=0.0, decoupled=False, frozen=(), **settings):
        p, g, slots, table, counters, ok, factor, copy16 = rule.call(*args)
        lr, *scalars = table[min(int(counters[1]), len(table) - 1)]
        at = np.arange(p.size)
        moves = np.full(p.shape, ok[0])
        for begin, end in frozen:
            moves &= (at < begin) | (at >= end)
        decay = np.where(at < decay_end, weight_decay * p, 0)
        slope = g * factor[0] + (0 if decoupled else decay)
        with np.errstate(all="ignore"):  # of what does not move
            move, *states = FORMULAS[rule.name](slope, *slots, *scalars, **settings)
        changed = p - lr * (move + (decay if decoupled else 0)), *states
        news = [
            None if old is None else np.where(moves, new, old) for old, new in zip((p, *slots), changed, strict=True)
        ]
        # Exactly the parameters: what the rounding of a 16-bit copy costs is the bound's business.
        news.append(None if copy16 is None else news[0] if ok[0] else copy16)
        return rule.state(*news)._asdict()

    return update


def average(averaged, values, ok, *, decay):
    return {"out": decay * averaged + (1 - LONG(decay)) * values if ok[0] else averaged}


def add_epoch_sums(sums, value, divisor, correct, ok, *, rows):
    new = np.asarray([value[0] * divisor[0], divisor[0], correct[0], rows])
    return {"out": sums + new if ok[0] else sums}


def correct(output, target):
    right = 0
    for scores, wanted in zip(rows(output), target.reshape(-1, *target.shape[output.ndim - 1 :]), strict=True):
        if any(math.isnan(s) for s in scores):
            continue
        if len(scores) == 1 and target.dtype.kind == "f":
            right += (scores[0] > 0) == (wanted[0] > 0.5)
        else:
            wanted = wanted if target.dtype.kind == "i" else list(wanted).index(max(wanted))
            right += list(scores).index(max(scores)) == wanted
    return {"out": np.asarray([right])}


ORACLES = {name: rule_oracle(rule) for name, rule in RULES.items()} | {
    f.__name__: f
    for f in (
        activation, activation_backward, count_step, affine, affine_backward, average, batch_norm,
        binary_cross_entropy, commit, dropout, dropout_backward, gather, gather_raw, correct, check_step,
        mean_squared_error, merge, moments, normalize, normalize_backward, softmax_cross_entropy, add_epoch_sums, total,
    )
}  # fmt: skip
