"""A toy library of fused versions for NumPy: kernels that allocate nothing, and their launchers.

It serves to test arenas, plans and replay without a compiler or a GPU: a launcher asks for outputs and scratch, says
what is read and how it splits, and launches. `installed(monkeypatch)` gives its names to the ops.
"""

from typing import Any

import numpy as np

from bnengine import ops
from bnengine.ops.batch_norm import BatchNormalized, NormalizeGradients
from bnengine.ops.check_step import StepCheck
from bnengine.ops.dense import AffineGradients
from bnengine.ops.gather import Gathered
from bnengine.ops.loss import Loss
from bnengine.ops.statistics import Moments
from bnengine.ops.update import RULES, Advanced
from bnengine.runtime.plan import COLUMNS, ROWS, Launch, Plan
from tests.support import give_versions

FUSED = (
    "affine", "affine_backward", "moments", "normalize", "batch_norm", "normalize_backward", "softmax_cross_entropy",
    "correct", "check_step", "adam", "commit", "add_epoch_sums", "count_step", "gather",
)  # fmt: skip


def installed(monkeypatch: Any, *names: str) -> None:
    """Let the ops (all of `FUSED` if none is named) take their fused versions from here, and no op from elsewhere."""
    give_versions(monkeypatch, {name: globals()[name] for name in names or FUSED}, alone=True)


def _activate(z, kind):
    if kind == "relu":
        np.maximum(z, 0, out=z)
    elif kind != "identity":
        raise AssertionError(kind)


def _derivative(dy, y, dz, mask, kind):
    np.copyto(dz, dy)
    if kind == "relu":
        np.less_equal(y, 0, out=mask)
        np.copyto(dz, 0, where=mask)


def _store(out, value, adds):
    if adds:
        np.add(out, value, out=out)
    elif out is not value:
        np.copyto(out, value, casting="same_kind")


# -- affine


def _affine(x, W, b, y, activation):
    np.matmul(x, W, out=y)
    if b is not None:
        np.add(y, b, out=y)
    _activate(y, activation)


def affine(to, x, W, b=None, *, activation="identity", slope=0.01):
    y = to.array("out", (x.shape[0], W.shape[1]), x.dtype, x)
    to.launch(_affine, whole=(x,), reads=(W, b), writes=(y,), scalars=(activation,), split=COLUMNS)
    return y


def _affine_weights(x, dy, y, dz, dW, db, mask, t, row, activation, dW_adds, db_adds):
    _derivative(dy, y, dz, mask, activation)
    np.matmul(x.T, dz, out=t)
    _store(dW, t, dW_adds)
    np.add.reduce(dz, axis=0, out=row)
    _store(db, row, db_adds)


def _affine_input(dz, Wt, dx, t, adds):
    np.matmul(dz, Wt, out=t)
    _store(dx, t, adds)


def affine_backward(to, dy, x, W, y, *, activation="identity", slope=0.01, input_gradient=True, bias_gradient=True):
    dz = to.array("dz", y.shape, y.dtype, y)
    dW, db = to.array("dW", W.shape, W.dtype, W), to.array("db", W.shape[1:], W.dtype, W)
    scratch = ((y.shape, np.bool_), (W.shape, W.dtype), (W.shape[1:], W.dtype))
    scalars = (activation, to.adds("dW"), to.adds("db"))
    reads = {"whole": (x,), "reads": (dy, y), "writes": (dz, dW, db)}
    to.launch(_affine_weights, **reads, scratch=scratch, scalars=scalars, split=COLUMNS)
    dx = None
    if input_gradient:
        dx = to.array("dx", x.shape, x.dtype, x)
        scratch = ((x.shape, x.dtype),)
        scalars = (to.adds("dx"),)
        arrays = {"whole": (dz,), "reads": (W.T,), "writes": (dx,)}
        to.launch(_affine_input, **arrays, scratch=scratch, scalars=scalars, split=COLUMNS)
    return AffineGradients(dx, dW, db if bias_gradient else None)


# -- batch normalization


def _moments(x, batch, pending, d, adds):
    np.copyto(d, x)
    np.add.reduce(d, axis=0, out=batch[1])
    np.divide(batch[1], len(x), out=batch[1])
    np.subtract(d, batch[1], out=d)
    np.multiply(d, d, out=d)
    np.add.reduce(d, axis=0, out=batch[2])
    np.divide(batch[2], len(x), out=batch[2])
    np.copyto(batch[0], len(x))
    _store(pending, ops.merge.reference(pending, batch) if adds else batch, False)


def moments(to, x):
    batch, pending = _statistics(to, x)
    scratch, scalars = ((x.shape, np.float64),), (to.adds("pending"),)
    to.launch(_moments, reads=(x,), writes=(batch, pending), scratch=scratch, scalars=scalars, split=COLUMNS)
    return Moments(batch, pending)


def _statistics(to, x):
    batch = to.array("batch", (3, x.shape[1]), np.float64, x)
    pending = to.array("pending", batch.shape, np.float64, x) if to.given("pending") else batch
    return batch, pending


def _normalize(x, statistics, gamma, beta, y, t, eps, activation):
    np.add(statistics[2], eps, out=t)
    np.sqrt(t, out=t)
    np.subtract(x, statistics[1], out=y, casting="same_kind")
    np.divide(y, t, out=y, casting="same_kind")
    np.multiply(y, gamma, out=y)
    np.add(y, beta, out=y)
    _activate(y, activation)


def normalize(to, x, statistics, gamma, beta, add=None, *, eps=1e-5, activation="identity", slope=0.01):
    assert add is None
    y = to.array("out", x.shape, x.dtype, x)
    reads, scratch = (x, statistics, gamma, beta), ((x.shape[1:], np.float64),)
    to.launch(_normalize, reads=reads, writes=(y,), scratch=scratch, scalars=(eps, activation), split=COLUMNS)
    return y


def _batch_norm(x, gamma, beta, batch, pending, y, d, t, eps, activation, adds):
    _moments(x, batch, pending, d, adds)
    _normalize(x, batch, gamma, beta, y, t, eps, activation)


def batch_norm(to, x, gamma, beta, add=None, *, eps=1e-5, activation="identity", slope=0.01):
    assert add is None
    y = to.array("y", x.shape, x.dtype, x)
    batch, pending = _statistics(to, x)
    scratch, scalars = ((x.shape, np.float64), (x.shape[1:], np.float64)), (eps, activation, to.adds("pending"))
    arrays = {"reads": (x, gamma, beta), "writes": (batch, pending, y), "scratch": scratch}
    to.launch(_batch_norm, **arrays, scalars=scalars, split=COLUMNS)
    return BatchNormalized(y, batch, pending)


def _normalize_backward(
    dy, x, y, statistics, gamma, dx, dgamma, dbeta, t, h, dz, mask, row, eps, activation, adds, own
):  # fmt: skip
    rows = len(x) if own else np.inf
    np.add(statistics[2], eps, out=t)
    np.sqrt(t, out=t)
    np.subtract(x, statistics[1], out=h, casting="same_kind")
    np.divide(h, t, out=h, casting="same_kind")
    _derivative(dy, y, dz, mask, activation)
    np.add.reduce(dz, axis=0, out=row)
    np.multiply(dz, h, out=dx)
    np.divide(row, rows, out=t)
    np.subtract(dz, t, out=dz, casting="same_kind")
    _store(dbeta, row, adds[1])
    np.add.reduce(dx, axis=0, out=row)
    _store(dgamma, row, adds[0])
    np.divide(row, rows, out=t)
    np.multiply(h, t, out=h, casting="same_kind")
    np.subtract(dz, h, out=dx)
    np.multiply(dx, gamma, out=dx)
    np.add(statistics[2], eps, out=t)
    np.sqrt(t, out=t)
    np.divide(dx, t, out=dx, casting="same_kind")


def normalize_backward(
    to, dy, x, y, statistics, gamma, beta, add=None, *,
    eps=1e-5, activation="identity", slope=0.01, batch_statistics=True,
):  # fmt: skip
    assert add is None
    assert not to.given("dx")
    dx = to.array("dx", x.shape, x.dtype, x)
    dgamma, dbeta = (to.array(name, gamma.shape, gamma.dtype, x) for name in ("dgamma", "dbeta"))
    wide, row = (gamma.shape, np.float64), (gamma.shape, gamma.dtype)
    to.launch(
        _normalize_backward, reads=(dy, x, y, statistics, gamma), writes=(dx, dgamma, dbeta), split=COLUMNS,
        scratch=(wide, (x.shape, x.dtype), (x.shape, x.dtype), (x.shape, np.bool_), row),
        scalars=(eps, activation, (to.adds("dgamma"), to.adds("dbeta")), batch_statistics),
    )  # fmt: skip
    return NormalizeGradients(dx, None, dgamma, dbeta)


# -- loss


def _softmax(logits, target, divisor, value, d, adds):
    result = ops.softmax_cross_entropy.reference(logits, target, divisor=divisor)
    _store(value, result.value, adds)
    np.copyto(d, result.dlogits)


def softmax_cross_entropy(to, logits, target, class_weights=None, sample_weights=None, *, divisor, label_smoothing=0.0):
    assert class_weights is None
    assert sample_weights is None
    assert label_smoothing == 0
    value = to.array("value", (1,), logits.dtype, logits)
    d = to.array("dlogits", logits.shape, logits.dtype, logits)
    to.launch(_softmax, whole=(logits, target, divisor), writes=(value, d), scalars=(to.adds("value"),))
    return Loss(value, d)


def _hits(output, target, out, adds):
    _store(out, ops.correct.reference(output, target), adds)


def correct(to, output, target):
    out = to.array("out", (1,), np.float64, output)
    to.launch(_hits, whole=(output, target), writes=(out,), scalars=(to.adds("out"),))
    return out


# -- the end of a step


def _judge(loss, gradients, pending, ok, norm, factor, clip):
    for out, value in zip(
        (ok, norm, factor), ops.check_step.reference(loss, gradients, pending, clip=clip)[:3], strict=True
    ):
        np.copyto(out, value)


def check_step(to, loss, gradients, pending, scaling=None, *, clip=None, **options):
    assert scaling is None, "the toy's check_step has no loss scale"
    kinds = (("ok", np.bool_), ("norm", np.float64), ("factor", gradients.dtype))
    out = [to.array(name, (1,), dtype, gradients) for name, dtype in kinds]
    to.launch(_judge, whole=(loss, gradients, pending), writes=out, scalars=(clip,))
    return StepCheck(*out)


def _adam(table, counters, ok, factor, p, g, m, v, new_p, new_m, new_v, options):
    result = ops.adam.reference(p, g, m, v, None, table, counters, ok, factor, **dict(options))
    for out, value in zip((new_p, new_m, new_v), result, strict=False):
        np.copyto(out, value)


def adam(to, parameters, gradients, m, v, largest, table, counters, ok, factor, **options):
    assert largest is None
    slots = (("parameters", parameters), ("m", m), ("v", v))
    out = [to.array(name, a.shape, a.dtype, a) for name, a in slots]
    whole, reads = (table, counters, ok, factor), (parameters, gradients, m, v)
    to.launch(_adam, whole=whole, reads=reads, writes=out, scalars=(tuple(options.items()),))
    return RULES["adam"].state(*out, None)


def _commit(ok, running, pending, decay, unbiased, out):
    np.copyto(out, ops.commit.reference(running, pending, ok, decay, unbiased))


def commit(to, running, pending, ok, decay, unbiased):
    out = to.array("out", running.shape, np.float64, running)
    to.launch(_commit, whole=(ok,), reads=(running, pending, decay, unbiased), writes=(out,), split=COLUMNS)
    return out


def _tally(sums, value, divisor, correct, ok, out, rows):
    np.copyto(out, ops.add_epoch_sums.reference(sums, value, divisor, correct, ok, rows=rows))


def add_epoch_sums(to, sums, value, divisor, correct, ok, *, rows):
    out = to.array("out", sums.shape, np.float64, sums)
    to.launch(_tally, whole=(sums, value, divisor, correct, ok), writes=(out,), scalars=(rows,))
    return out


def _advance(counters, ok, cursor, out, new_cursor, rows):
    counted, moved = ops.count_step.reference(counters, ok, cursor, rows=rows)
    np.copyto(out, counted)
    if cursor is not None:
        np.copyto(new_cursor, moved)


def count_step(to, counters, ok, cursor=None, *, rows=0):
    out = to.array("counters", counters.shape, np.int64, counters)
    moved = None if cursor is None else to.array("cursor", cursor.shape, np.int64, cursor)
    to.launch(_advance, whole=(counters, ok, cursor), writes=(out, moved), scalars=(rows,))
    return Advanced(out, moved)


# -- data


def _gather(x, target, weights, samples, divisors, order, cursor, places, *outs):
    *outs, divisor, offset = outs
    rows = places.shape[0]
    start = int(cursor[0]) + offset
    np.copyto(places, order[start : start + rows])
    for a, out in zip((x, target, weights, samples), outs, strict=True):
        if a is not None:
            np.take(a, places, axis=0, out=out, mode="clip")
    np.copyto(divisor, divisors[cursor[1] : cursor[1] + 1])


def gather(to, x, target, weights, samples, divisors, order, cursor, *, rows, offset=0):
    given = {"x": x, "target": target, "weights": weights, "samples": samples}
    outs = [None if a is None else to.array(f, (rows, *a.shape[1:]), a.dtype, a) for f, a in given.items()]
    outs.append(to.array("divisor", (1,), divisors.dtype, x))
    places = to.array("places", (rows,), np.int64, x)
    whole = (*given.values(), divisors, order, cursor)
    to.launch(_gather, whole=whole, writes=(places, *outs), scalars=(offset,))
    return Gathered(*outs)


def block(launch: Launch, start: int, stop: int) -> Launch:
    """The same launch on the columns or rows [start, stop) of what it reads and writes."""

    def cut(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        part = slice(start, stop) if launch.split == ROWS else (..., slice(start, stop))
        return tuple(None if x is None else x[part] for x in arrays)

    scratch = cut(launch.scratch) if launch.split == COLUMNS else launch.scratch
    return launch._replace(reads=cut(launch.reads), writes=cut(launch.writes), scratch=scratch)


def replay_by_blocks(plan: Plan, size: int) -> None:
    """Run each group of a plan block by block, `size` columns or rows at a time."""
    for group in plan.groups():
        if group[0].split is None:
            for launch in group:
                launch()
            continue
        for start in range(0, group[0].width, size):
            for launch in group:
                block(launch, start, min(start + size, launch.width))()
