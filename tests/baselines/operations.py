"""Calls of single ops on fixed inputs, and digests of their outputs."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import bnengine as bn

from .allowed import old_name
from .digests import Digests, digest
from .draws import Array, codes, draw, probabilities, share
from .networks import ACTIVATIONS

SHAPES = (7, 5, 3), (61, 19, 33), (300, 64, 10), (1030, 37, 70)  # rows, inputs, outputs
TINY = (2, 1, 1), (3, 8, 1), (5, 1, 16)


class Call(NamedTuple):
    """Arguments of an op; `into`: an output that is added to a destination."""

    op: str
    args: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012 -- a default of a tuple's field, never written to
    into: str = ""


@cache
def table() -> dict[str, Call]:
    """Every call, by its name."""
    found: dict[str, Call] = {}
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        for shape in SHAPES if dtype.startswith("float") and dtype != "float16" else SHAPES[:2]:
            label = f"{dtype}, {'x'.join(map(str, shape))}"
            for name, call in calls(dtype, *shape):
                found[f"{old_name(call.op)}: {name}, {label}"] = call
    for shape in TINY:
        for name, call in calls("float32", *shape):
            found[f"{old_name(call.op)}: {name}, float32, {'x'.join(map(str, shape))}"] = call
    for name, call in calls("float32", *SHAPES[1]):
        found[f"{old_name(call.op)}: {name}, float32, strided"] = call._replace(args=tuple(map(strided, call.args)))
    return found


def strided(value: Any) -> Any:
    """An array of two axes or more as a view whose rows are apart; anything else unchanged."""
    if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind != "f" or len(value) == 3:
        return value
    padded = np.zeros((*value.shape[:-1], value.shape[-1] + 3), value.dtype)
    padded[..., 1:-2] = value
    return padded[..., 1:-2]


def has_kernels(name: str) -> bool:
    """Whether native kernels compute this call."""
    return "float16" not in name


def calls(dtype: str, rows: int, inputs: int, outputs: int) -> Iterator[tuple[str, Call]]:
    """The calls for one dtype and size."""
    kind = narrow(dtype)
    arithmetic = "float32" if dtype in ("float16", "bfloat16") else dtype
    x, W = draw("x", rows, inputs).astype(kind), draw("W", inputs, outputs).astype(kind)
    b, dy = draw("b", outputs, dtype=arithmetic), draw("dy", rows, outputs).astype(kind)
    full = rows < 100  # of large sizes a few are enough
    yield from affine(x, W, b, dy, full)
    yield from normalization(dy, arithmetic, full)
    yield from elements(x, full)
    yield from losses(dy, arithmetic)


def narrow(dtype: str) -> Any:
    """A dtype that NumPy may not have itself."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def affine(x: Array, W: Array, b: Array, dy: Array, full: bool) -> Iterator[tuple[str, Call]]:
    """Products with what follows them."""
    for kind in ACTIVATIONS if full else ("identity", "gelu"):
        yield kind, Call("affine", (x, W, b), {"activation": kind, "slope": 0.2})
    yield "no bias", Call("affine", (x, W))
    for kind in ("identity", "relu", "leaky_relu", "sigmoid", "tanh") if full else ("identity",):
        options = {"activation": kind, "slope": 0.2}
        y = output_like(draw("y", *dy.shape).astype(dy.dtype), kind)
        yield kind, Call("affine_backward", (dy, x, W, y), options)
    for output in ("dx", "dW", "db"):
        yield f"{output} added", Call("affine_backward", (dy, x, W, dy), {}, output)
    only = {"input_gradient": False, "bias_gradient": False}
    yield "dW only", Call("affine_backward", (dy, x, W, dy), only)


def output_like(y: Array, kind: str) -> Array:
    """Numbers that may be the output of an activation."""
    if kind in ("identity", "relu", "leaky_relu"):
        return y
    return (np.abs(y.astype("float64")) / 7).astype(y.dtype)


def normalization(x: Array, arithmetic: str, full: bool) -> Iterator[tuple[str, Call]]:
    """Batch normalization, forward and backward, with its statistics."""
    channels = x.shape[-1]
    x = (x.astype(arithmetic) * 2 + 30).astype(x.dtype)
    gamma, beta = draw("gamma", channels, dtype=arithmetic), draw("beta", channels, dtype=arithmetic)
    add, dy = (draw(label, *x.shape).astype(x.dtype) for label in ("add", "dz"))
    count = np.full(channels, 50.0)
    running = np.stack([count, 30 + draw("mean", channels, dtype="float64"), share("var", channels, dtype="float64")])
    for kind in ACTIVATIONS if full else ("identity", "relu"):
        options = {"activation": kind, "slope": 0.2}
        yield kind, Call("batch_norm", (x, gamma, beta), options)
        yield f"{kind}, sum", Call("batch_norm", (x, gamma, beta, add), options)
        yield kind, Call("normalize", (x, running, gamma, beta), options)
        y = output_like(add, kind)
        for batch in (True, False):
            given = {**options, "batch_statistics": batch}
            name = f"{kind}, batch {batch}"
            yield name, Call("normalize_backward", (dy, x, y, running, gamma, beta), given)
            yield f"{name}, sum", Call("normalize_backward", (dy, x, y, running, gamma, beta, add), given)
    yield "bare", Call("batch_norm", (x, None, None), {"eps": 0.01})
    yield "bare", Call("normalize_backward", (dy, x, add, running, None, None), {"eps": 0.01})
    yield "merged", Call("batch_norm", (x, gamma, beta), {}, "pending")
    for output in ("dx", "dgamma", "dbeta"):
        yield f"{output} added", Call("normalize_backward", (dy, x, add, running, gamma, beta), {}, output)
    yield "plain", Call("moments", (x,))
    far = (x.astype(arithmetic) + 1000).astype(x.dtype)
    yield "far", Call("moments", (far,))
    constant = np.ones_like(x) * x.dtype.type(3)
    yield "constant channels", Call("batch_norm", (constant, gamma, beta))
    if x.ndim == 2 and x.shape[0] % 3 == 0:
        picture = x.reshape(3, -1, channels)
        yield "three axes", Call("batch_norm", (picture, gamma, beta))
    yield "plain", Call("batch_normalization", (x, running[1], running[2], beta, gamma, 0.01))
    if arithmetic == "float64" and x.dtype == "float64":
        yield "plain", Call("merge", (running, running[:, ::-1] * 0.5))
        decay = np.where(np.arange(channels) % 3 == 0, -1.0, 0.9)
        args = running, running[:, ::-1] * 0.5, np.asarray([True]), decay, np.arange(channels) % 2 == 0
        yield "mixed", Call("commit", args)
        yield "skipped", Call("commit", (*args[:2], np.asarray([False]), *args[3:]))


def elements(x: Array, full: bool) -> Iterator[tuple[str, Call]]:
    """Element by element: activations, sums, dropout."""
    dy, y = draw("dy of x", *x.shape).astype(x.dtype), share("y of x", *x.shape).astype(x.dtype)
    for kind in ACTIVATIONS if full else ("sigmoid", "tanh", "gelu"):
        options = {"kind": kind, "slope": 0.2}
        yield kind, Call("activation", (x,), options)
        yield kind, Call("activation_backward", (dy, x, y), options)
        yield f"{kind} added", Call("activation_backward", (dy, x, y), options, "out")
    wide = (x.astype("float32") * 9).astype(x.dtype)  # the far ends of what is exponential
    for kind in ("sigmoid", "tanh", "gelu"):
        yield f"{kind}, wide", Call("activation", (wide,), {"kind": kind})
        yield f"{kind}, wide", Call("activation_backward", (dy, wide, y), {"kind": kind})
    yield "plain", Call("total", (x, dy))
    yield "added", Call("total", (x, dy), {}, "out")
    step, samples = np.asarray([11]), codes("samples", 2**31, len(x))
    options = {"seed": 2**40 + 7, "layer": 1, "rate": 0.3}
    yield "plain", Call("dropout", (x, step, samples), options)
    keep = codes("keep", 2, *x.shape).astype(bool)
    yield "plain", Call("dropout_backward", (dy, keep), {"rate": 0.3})
    yield "added", Call("dropout_backward", (dy, keep), {"rate": 0.3}, "out")


def losses(z: Array, arithmetic: str) -> Iterator[tuple[str, Call]]:
    """Losses with their gradients, and how many rows are right."""
    rows, width = z.shape
    y, t = codes("classes", width, rows), probabilities("t", rows, width, dtype=arithmetic)
    v, c = share("weights", rows, dtype=arithmetic), share("class weights", width, dtype=arithmetic)
    total = np.asarray([rows * 0.4], arithmetic)
    scale = np.asarray([512.0], arithmetic)
    own = {"divisor": total}
    yield "classes", Call("softmax_cross_entropy", (z, y), own)
    yield "smoothed", Call("softmax_cross_entropy", (z, y, c, v), {**own, "label_smoothing": 0.1})
    yield "probabilities", Call("softmax_cross_entropy", (z, t, c, v), {**own, "label_smoothing": 0.1})
    yield "scaled, added", Call("softmax_cross_entropy", (z, y), {**own, "scale": scale}, "value")
    for name in ("binary_cross_entropy", "mean_squared_error"):
        own = {"divisor": total}
        yield "plain", Call(name, (z, t), own)
        yield "weighted, scaled", Call(name, (z, t, v), {**own, "scale": scale})
        yield "added", Call(name, (z, t), own, "value")
    yield "classes", Call("correct", (z, y))
    yield "probabilities", Call("correct", (z, t))


def outputs(call: Call, mode: str) -> dict[str, Any]:
    """The outputs of a call by name, by native kernels or by the reference."""
    op = getattr(bn.ops, call.op)
    with bn.ops.using(mode), np.errstate(all="ignore"):
        into = {}
        if call.into:
            like = outputs(call._replace(into=""), "reference")[call.into]
            into = {call.into: bn.ops.Out(destination(call.into, like), True)}
        result = op(*call.args, **({"into": into} if into else {}), **call.options)
    return dict(result._asdict()) if hasattr(result, "_asdict") else {"out": result}


def destination(name: str, like: Array) -> Array:
    """What an output is added to; statistics have a count and a variance."""
    array = draw(f"into {old_name(name)}", *like.shape, dtype="float64")
    if name == "pending":
        array[0], array[2] = 5, np.abs(array[2])
    return array.astype(like.dtype)


def digests(call: Call, mode: str) -> Digests:
    """Of the outputs that there are."""
    return {old_name(name): digest(array) for name, array in outputs(call, mode).items() if array is not None}
