"""Fused versions for NumPy that are wrong on purpose, each in one way; `baked` keeps what a replay must read."""

from typing import Any

import numpy as np

from bnengine import ops
from bnengine.ops.loss import Loss
from bnengine.runtime.reasons import Kind, Reason

LARGE = 100  # rows from which `large_batches_only` is wrong


def only_float32(x: Any) -> Reason | None:
    """Why a version cannot take x: it takes float32 alone."""
    return None if x.dtype == np.float32 else Reason(Kind.ARRAY, f"{x.dtype} is not float32")


def _into(to: Any, op: Any, result: Any) -> Any:
    """The result, stored in the caller's destinations by the op's rules."""
    into = {field: to._into[field] for field in op.fields if to.given(field)}
    return op._store(result, into)


def right(to, x, W, b=None, **options):
    return _into(to, ops.affine, ops.affine.reference(x, W, b, **options))


def off_by_a_little(to, x, W, b=None, **options):
    return _into(to, ops.affine, ops.affine.reference(x, W, b, **options) * x.dtype.type(1 + 2e-5))


def without_bias(to, x, W, _b=None, **options):
    return _into(to, ops.affine, ops.affine.reference(x, W, None, **options))


def wrong_sign(to, dy, x, y, *args, **options):
    g = ops.normalize_backward.reference(dy, x, y, *args, **options)
    return _into(to, ops.normalize_backward, g._replace(dx=-g.dx))


def without_the_mean_of_dz(to, dy, x, y, *args, **options):
    g = ops.normalize_backward.reference(dy, x, y, *args, **options)
    constant = ops.normalize_backward.reference(dy, x, y, *args, **{**options, "batch_statistics": False})
    return _into(to, ops.normalize_backward, g._replace(dx=constant.dx))


def overwrites(to, dy, x, W, y, **options):
    """Right, but never adds to a destination."""
    g = ops.affine_backward.reference(dy, x, W, y, **options)
    for field in ("dW", "db"):
        if to.given(field):
            to._into[field].array[...] = getattr(g, field)
            g = g._replace(**{field: to._into[field].array})
    return g


def large_batches_only(to, x, *args, **options):
    found = ops.batch_norm.reference(x, *args, **options)
    if len(x) >= LARGE:
        batch = found.batch.copy()
        batch[2] *= len(x) / (len(x) - 1)
        found = found._replace(y=ops.normalize.reference(x, batch, *args, **options), batch=batch, pending=batch)
    return _into(to, ops.batch_norm, found)


def raises(_to, _x, _W, _b=None, **_options):
    raise MemoryError("the kernel ran out of registers")


def _softmax(logits, target, divisor, value, d):
    result = ops.softmax_cross_entropy.reference(logits, target, divisor=divisor)
    value[...], d[...] = result.value, result.dlogits


def baked(to, logits, target, class_weights=None, sample_weights=None, *, divisor, label_smoothing=0.0):
    """Right when it is recorded; a replay still reads the targets of the first step."""
    if class_weights is not None or sample_weights is not None or label_smoothing or target.dtype.kind != "i":
        options = {"divisor": divisor, "label_smoothing": label_smoothing}
        result = ops.softmax_cross_entropy.reference(logits, target, class_weights, sample_weights, **options)
        return _into(to, ops.softmax_cross_entropy, result)
    value = to.array("value", (1,), logits.dtype, logits)
    d = to.array("dlogits", logits.shape, logits.dtype, logits)
    if to.adds("value"):
        return _into(
            to, ops.softmax_cross_entropy, ops.softmax_cross_entropy.reference(logits, target, divisor=divisor)
        )
    first_target = target.copy()

    def kernel(logits, value, d):
        _softmax(logits, first_target, divisor, value, d)

    to.launch(kernel, whole=(logits,), writes=(value, d))
    return Loss(value, d)
