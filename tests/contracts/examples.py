"""More examples of every op: sizes that kernels cut into blocks, odd widths, single rows, values that are not finite.

`examples` yields those of the contract, then `sized`; every result of these has a formula. Of `special`, the reference
says what is not finite. `tests/gpu/every_kernel.py` launches every kernel by `sized`, without pytest.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from bnengine.arrays.dtypes import arithmetic_name, is_narrow
from bnengine.arrays.random import philox
from bnengine.contracts.update import RULE_CONTRACTS, typical
from bnengine.ops import REGISTRY, Example
from bnengine.ops.activations import ACTIVATIONS
from bnengine.ops.update import RULES

CUT = 1113  # rows that native kernels cut into blocks, none of which ends evenly, and CUDA kernels into splits
SIZES = ((20, 37), (20, 64), (CUT, 21), (CUT, 24))  # of rows that begin on 16 bytes and not
EDGES = ((1, 1), (1, 65), (2, 1), (2, 129), (3, 7), (33, 17), (67, 257), (300, 131), (CUT, 1))
BATCH_NORM = ("normalize", "batch_norm", "normalize_backward")
ACTIVATED = (*BATCH_NORM, "activation", "activation_backward", "affine", "affine_backward")
OF_ROWS = (*ACTIVATED, "moments", "total", "dropout", "dropout_backward", "gather", "gather_raw")
SUBNORMAL = {  # the arguments that are scaled down
    "total": (0, 1), "activation": (0,), "activation_backward": (0, 1, 2), "affine": (0,), "dropout": (0,),
    "dropout_backward": (0,), "gather": (0,),
}  # fmt: skip
CLASSES = (1, 2, 15, 16, 17, 37, 64, 100, 1032, 1400)  # of eleven rows, of three where there are a thousand
OUTPUTS = ((1, 1), (5, 300), (1500, 3), (3001, 1))
SIZES_OF_UPDATES = (1, 17, 5003, 30003)
FROZEN = ((0, 1), (4, 9), (2000, 4100), (5002, 5003))  # of 5003: at both ends, inside a block, over several
CONTROL = {"divisor": 9.0}


class Draw:
    """Random arrays: `stored` in a dtype, `wide` in that of its arithmetic."""

    def __init__(self, dtype: str, seed: int = 0) -> None:
        self.rng, self.dtype, self.arithmetic = np.random.default_rng(seed), np.dtype(dtype), arithmetic_name(dtype)

    def stored(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def wide(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(self.arithmetic)

    def shares(self, *shape: int) -> np.ndarray:
        return self.rng.random(shape).astype(self.arithmetic)


def examples(name: str, dtype: str) -> Iterator[Example]:
    """Those of the contract and `sized`."""
    yield from REGISTRY[name].contract.examples(np.random.default_rng(0), dtype)
    yield from sized(name, dtype)


def sized(name: str, dtype: str) -> Iterator[Example]:
    """Examples that the blocks of every kernel share out."""
    if name in OF_ROWS:
        for kind in ACTIVATIONS if name in ACTIVATED else ("identity",):
            for rows, width in SIZES:
                if rows < CUT or kind == "relu" or (kind in ("gelu", "leaky_relu") and not is_narrow(dtype)):
                    yield from of_rows(name, dtype, rows, width, kind)
        for rows, width in () if is_narrow(dtype) else EDGES:
            yield from of_rows(name, dtype, rows, width)
        if name == "normalize_backward" and not is_narrow(dtype):
            yield from _parts_absent(dtype)
        if name == "moments" and not is_narrow(dtype):
            yield hard_moments(dtype)
        if name in SUBNORMAL and not is_narrow(dtype):
            yield _subnormal(name, dtype)
        if name == "dropout":
            yield from _at_the_threshold(dtype)
    elif name in LOSSES:
        yield from LOSSES[name](name, Draw(dtype))
    elif name in RULES:
        yield from _updates(name, dtype)
    elif name in OTHERS:
        yield from OTHERS[name](Draw(dtype))


# -- rows of channels


def of_rows(name: str, dtype: str, rows: int, width: int, kind: str = "relu") -> Iterator[Example]:
    """The example of this size, none where there is none; its statistics are not those of its rows but near them."""
    draw, label, act = Draw(dtype, rows + width), f"{rows} x {width}, {kind}", {"activation": kind}
    x, dy, add = draw.stored(rows, width) * 2 + 30, draw.stored(rows, width), draw.stored(rows, width)
    x, gamma, beta = x.astype(dtype), draw.wide(width), draw.wide(width)
    statistics = np.stack([np.full(width, 9.0), np.full(width, 30.1), np.full(width, 4.2)])
    samples, order = draw.rng.integers(0, 10**6, rows), draw.rng.permutation(rows)
    if name in ("gather", "gather_raw"):
        yield from _gathered(name, draw, label, x, samples, order)
        return
    if name == "affine_backward" and ACTIVATIONS[kind].reads == "z":
        return
    out, activated = None, None
    if name == "normalize_backward":
        out = REGISTRY["normalize"].reference(x, statistics, gamma, beta, add, activation=kind)
    if name == "activation_backward":
        activated = REGISTRY["activation"].reference(add, kind=kind)
    z = draw.stored(rows, 21)
    if name == "affine_backward":
        z = REGISTRY["activation"].reference(z, kind=kind)
    args, options = {
        "moments": ((x,), {}),
        "normalize": ((x, statistics, gamma, beta, add), act),
        "batch_norm": ((x, gamma, beta, add), act),
        "normalize_backward": ((dy, x, out, statistics, gamma, beta, add), act),
        "activation": ((dy,), {"kind": kind}),
        "activation_backward": ((dy, add, activated), {"kind": kind}),
        "total": ((x, dy), {}),
        "affine": ((dy, draw.stored(width, 21), draw.wide(21)), act),
        "affine_backward": ((draw.stored(rows, 21), dy, draw.stored(width, 21), z), act),
        "dropout": ((x, np.asarray([5]), samples), {"seed": 2**40 + 3, "layer": 2, "rate": 0.4}),
        "dropout_backward": ((dy, draw.stored(rows, width) > 0), {"rate": 0.4}),
    }[name]
    yield Example(label, args, options)


def _gathered(name: str, draw: Draw, label: str, x: Any, samples: Any, order: Any) -> Iterator[Example]:
    rows, width = x.shape
    cursor = np.asarray([1, 3] if rows > 1 else [0, 3])
    ones, options = draw.wide(4), {"rows": max(1, rows - 1)}
    for target in (draw.wide(rows, 2), draw.rng.integers(0, 5, rows)):
        data = target, draw.wide(rows)
        if name == "gather":
            yield Example(f"{label}, {target.dtype}", (x, *data, samples, ones, order, cursor), options)
            continue
        scales = draw.rng.random(width), draw.rng.random(width)
        for raw in (x.astype(np.int16), x.astype(np.float64)):
            args = raw, *data, draw.rng.permutation(rows), ones, order, cursor, *scales
            yield Example(f"{label}, {raw.dtype}, {target.dtype}", args, options)


def _subnormal(name: str, dtype: str) -> Example:
    """Numbers below the smallest normal one: the bound lets none of them be flushed or rounded."""
    (_, args, options), *_ = of_rows(name, dtype, 37, 21)
    tiny = np.dtype(dtype).type(np.finfo(dtype).smallest_normal / 64)
    given = [a * tiny if i in SUBNORMAL[name] else a for i, a in enumerate(args)]
    if name == "affine":
        given[1:] = np.eye(21, dtype=dtype), np.zeros(21, dtype)
    exact = {"activation": "relu", "rate": 0.5}  # with which no result is rounded
    return Example("subnormal", tuple(given), options | {k: v for k, v in exact.items() if k in options})


def _at_the_threshold(dtype: str) -> Iterator[Example]:
    """A word of random bits that equals the rate is kept; the next rate drops it."""
    word = int(philox((0, 7, 3, 1), (5, 0))[2])
    for rate in (word / 2**32, (word + 1) / 2**32):
        args = np.ones((1, 4), dtype), np.asarray([3]), np.asarray([7])
        yield Example(f"rate {rate}", args, {"seed": 5, "layer": 1, "rate": rate})


def _parts_absent(dtype: str) -> Iterator[Example]:
    (example,) = of_rows("normalize_backward", dtype, CUT, 21)
    dy, x, y, statistics, gamma, beta, add = example.args
    for own in (True, False):
        for parts in ((gamma, beta, add), (None, beta, None), (gamma, None, None), (None, None, None)):
            label, options = f"{[part is not None for part in parts]}, {own}", {"batch_statistics": own}
            yield Example(label, (dy, x, y, statistics, *parts), example.options | options)


def hard_moments(dtype: str, rows: int = CUT) -> Example:
    """Columns whose moments cancel, vanish or overflow in a careless sum."""
    x = np.random.default_rng(0).standard_normal((rows, 12))
    x[:, 0] += 1e6
    x[0, 1] = 1e6
    x[:, 2] = 0.1
    x[:, 3] *= 1e-30
    x[:, 4] *= 1e20
    x[:, 5] = np.where(np.arange(rows) < 20, x[:, 5], 0)
    x[:, 6] = 0
    x[:, 7] *= 1e-39
    x[:, 8] = -3e38 * (1 + x[:, 8] / 100)
    x[rows // 2 :, 9] -= 1e4
    x[5, 10] = 3e38
    x[:, 11] = 1e-42
    return Example("hard", (np.clip(x, -3.4e38, 3.4e38).astype(dtype),))


# -- losses


def softmax(
    draw: Draw, rows: int, classes: int, kind: str = "numbers", weighted: bool = False, smoothing: float = 0.0,
) -> Example:  # fmt: skip
    """An example of softmax_cross_entropy, by what it has."""
    logits = (draw.rng.standard_normal((rows, classes)) * 3).astype(draw.dtype)
    numbers = draw.rng.integers(0, classes, rows)
    probabilities = draw.rng.dirichlet(np.ones(classes), rows).astype(draw.arithmetic)
    weights = [draw.shares(classes), draw.shares(rows)] if weighted else []
    target = numbers if kind == "numbers" else probabilities
    label = f"{rows} x {classes}, {kind}, weighted {weighted}, smoothing {smoothing}"
    return Example(label, (logits, target, *weights), {"divisor": float(rows), "label_smoothing": smoothing})


def _softmaxes(name: str, draw: Draw) -> Iterator[Example]:  # noqa: ARG001 -- as all losses
    for i, kind in enumerate(("numbers", "probabilities")):
        for j, classes in enumerate(CLASSES):
            weighted, smoothing = ((False, 0.1), (True, 0.0))[(i + j) % 2]
            yield softmax(draw, 11 if classes < 1000 else 3, classes, kind, weighted, smoothing)
        if not is_narrow(draw.dtype):
            yield softmax(draw, 331, 37, kind, True, 0.1)
            example = softmax(draw, 20, 1032, kind, True)
            yield example._replace(options={**example.options, "scale": draw.shares(1)})


def outputs(draw: Draw, rows: int, width: int, weighted: bool = True) -> Example:
    """An example of a loss of single outputs."""
    p = ((draw.rng.random((rows, width)) - 0.5) * 9).astype(draw.dtype)
    args = p, draw.shares(rows, width), *([draw.shares(rows)] if weighted else [])
    return Example(f"{rows} x {width}, weighted {weighted}", args, {"divisor": float(rows)})


def _of_outputs(name: str, draw: Draw) -> Iterator[Example]:  # noqa: ARG001 -- as all losses
    for rows, width in OUTPUTS:
        for weighted in (True, False):
            yield outputs(draw, rows, width, weighted)
    scaled = outputs(draw, 40, 64)
    yield scaled._replace(label="scaled", options={**scaled.options, "scale": draw.shares(1)})


def _correct(name: str, draw: Draw) -> Iterator[Example]:  # noqa: ARG001 -- as all losses
    """Ties, of which the first counts, and rows with a NaN, which are never right."""
    for rows, classes in ((1, 2), (3, 65), (100, 70), (331, 33)):
        output = draw.rng.integers(0, 3, (rows, classes)).astype(draw.dtype)
        codes = np.argmax(output, axis=1)
        codes[::3] = (codes[::3] + 1) % classes
        likely = draw.rng.integers(0, 3, (rows, classes)).astype(draw.arithmetic)
        output[::7, -1], likely[1:60, 0], output[1:60, 0] = np.nan, 3, 3
        output[5:6] = -np.inf
        for target in (codes, likely):
            yield Example(f"{rows} x {classes}, {target.dtype}", (output, target))


LOSSES = {
    "softmax_cross_entropy": _softmaxes,
    "binary_cross_entropy": _of_outputs,
    "mean_squared_error": _of_outputs,
    "correct": _correct,
}


# -- the end of a step


def flat(draw: Draw, name: str, size: int, ok: bool = True, row: int = 1, **options: Any) -> Example:
    """An example of an optimizer with all of its state, in 16 bits with a shadow of the parameters."""
    rule, (p, g) = RULES[name], draw.wide(2, size)
    slots = typical(rule, {slot: np.abs(draw.wide(size)) + 1 for slot in rule.slots})
    table = (draw.rng.random((3, rule.columns)) * 0.9 + 0.1).astype(draw.arithmetic)
    control = table, np.asarray([9, row, 0, 0, 0]), np.asarray([ok]), draw.shares(1)
    shadow = (p.astype(draw.dtype),) if is_narrow(draw.dtype) else ()
    label = f"{size}, row {row}, ok {ok}, {options}"
    return Example(
        label, (p, g, *slots, *control, *shadow), {"decay_end": size // 2 + 1, "weight_decay": 0.1, **options}
    )


def _updates(name: str, dtype: str) -> Iterator[Example]:
    draw = Draw(dtype)
    for options in RULE_CONTRACTS[name].variants.values():
        given = {k: v for k, v in options.items() if k not in ("absent", "frozen")}
        for size in SIZES_OF_UPDATES[0 if options == {} else 1 : 3]:
            yield flat(draw, name, size, **given)
    if is_narrow(dtype):
        return
    yield flat(draw, name, SIZES_OF_UPDATES[3])
    yield flat(draw, name, 5003, frozen=FROZEN)
    yield flat(draw, name, 5003, ok=False, frozen=FROZEN)
    for row in (0, 2, 3, 2**40):  # beyond the end of the table its last row counts
        yield flat(draw, name, 40, row=row)
    for decay_end in (0, 1, 6, 4096):
        yield flat(draw, name, 4100, decay_end=decay_end, decoupled=decay_end == 6)


def _step_checks(draw: Draw) -> Iterator[Example]:
    for i, size in enumerate((1, 4096, 4097, 12295)):
        for good in (None, 3.0, 4.0):
            pending = np.zeros((1, 3, 0)) if (i + (good or 0)) % 2 else draw.rng.random((2, 3, 501))
            scaling = () if good is None else (np.asarray([1024.0, good, 1.0, 2.0], draw.arithmetic),)
            args = np.ones(1, draw.arithmetic), draw.wide(size), pending, *scaling
            yield Example(f"{size}, {pending.size}, good {good}", args, {"clip": 1.0, "every": 5})


def _averages(draw: Draw) -> Iterator[Example]:
    for shape in ((1,), (3, 5001)):
        for ok in (True, False):
            args = draw.wide(*shape), draw.wide(*shape), np.asarray([ok])
            yield Example(f"{shape}, ok {ok}", args, {"decay": 0.99})


def _statistics(draw: Draw, width: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.abs(draw.rng.standard_normal((3, width))) + 1 for _ in range(2))
    b[0] = draw.rng.integers(0, 5, width)
    return a, b


def _merges(draw: Draw) -> Iterator[Example]:
    for width in (1, 7, 700):
        yield Example(f"{width} channels", _statistics(draw, width))


def _commits(draw: Draw) -> Iterator[Example]:
    for width in (1, 7, 700):
        decay, unbiased = draw.rng.choice([0.0, 0.9, -1.0], width), draw.rng.random(width) < 0.5
        yield Example(f"{width} channels", (*_statistics(draw, width), np.asarray([True]), decay, unbiased))


def _counters(_draw: Draw) -> Iterator[Example]:
    for counters in ([0, 0, 0, 0, 0], [2**40, 5, 9, 3, 8]):
        for ok in (True, False):
            args = np.asarray(counters), np.asarray([ok]), np.asarray([2**33, 4])
            yield Example(f"{counters}, ok {ok}", args, {"rows": 64})


OTHERS = {
    "check_step": _step_checks,
    "average": _averages,
    "merge": _merges,
    "commit": _commits,
    "count_step": _counters,
}


# -- values that are not finite


def special(name: str, dtype: str) -> Iterator[Example]:
    """Inputs with NaN and infinities, and targets that no class has."""
    if name in ("activation", "activation_backward", "normalize", "normalize_backward"):
        yield from _not_finite(name, dtype)
    elif name in SPECIAL:
        yield from SPECIAL[name](name, Draw(dtype))
    elif name in RULES:
        yield from _special_updates(name, Draw(dtype))


def _not_finite(name: str, dtype: str) -> Iterator[Example]:
    for kind in ACTIVATIONS:
        for example in of_rows(name, dtype, 40, 24, kind):
            rng, args = np.random.default_rng(1), []
            for a in example.args:
                if a is not None and a.shape == (40, 24):
                    a = a.copy()
                    for value in (np.nan, np.inf, -np.inf, -0.0):
                        a[rng.random(a.shape) < 0.2] = value
                args.append(a)
            own = {"batch_statistics": False} if name == "normalize_backward" else {}
            yield Example(f"not finite, {kind}", tuple(args), {**example.options, **own})


def _special_softmaxes(_name: str, draw: Draw) -> Iterator[Example]:
    for kind in ("numbers", "probabilities"):
        example = softmax(draw, 5, 40, kind)
        logits, target = example.args
        logits[:, 7] = -np.inf
        if kind == "numbers":
            target[:] = 3
        else:
            target[:, 7] = 0
        yield example._replace(label=f"a class that cannot be, {kind}")
    for smoothing in (0.0, 0.1):
        logits, codes = softmax(draw, 6, 40).args
        logits[2, codes[2]] = -np.inf
        weights = np.ones(6, draw.arithmetic)
        weights[2] = 0
        options = {"divisor": 5.0, "label_smoothing": smoothing}
        yield Example(f"weight 0, smoothing {smoothing}", (logits, codes, None, weights), options)
    bads = itertools.cycle((np.nan, np.inf))
    for classes in (8, 21, 1032):
        for kind, smoothing in (("numbers", 0.0), ("numbers", 0.1), ("probabilities", 0.0)):
            example, bad = softmax(draw, 9, classes, kind, smoothing=smoothing), next(bads)
            example.args[0][[3, 5], [0, classes - 1]] = bad
            yield example._replace(label=f"{bad} among {classes}, {kind}, {smoothing}")
    for which in range(4):
        for weight in (np.nan, np.inf, 0.0):
            logits, codes, classes, samples = softmax(draw, 9, 20, weighted=True).args
            divisor, scale = np.full(1, 9.0, draw.arithmetic), np.ones(1, draw.arithmetic)
            (classes[4:5], samples[4:5], divisor, scale)[which][:] = weight
            options = {"divisor": divisor, "scale": scale}
            yield Example(f"{weight} as weight {which}", (logits, codes, classes, samples), options)
    for classes in (5, 100):
        example = softmax(draw, 6, classes)
        example.args[1][[1, 4]] = -1, 2**40
        yield example._replace(label=f"numbers of no class among {classes}")


def _special_outputs(_name: str, draw: Draw) -> Iterator[Example]:
    p, t = draw.stored(50, 4), draw.rng.integers(0, 2, (50, 4)).astype(draw.arithmetic)
    with np.errstate(over="ignore"):
        p[3], p[20] = [np.nan, np.inf, -np.inf, -0.0], [1e30, -1e30, 1e-40, 200]
    for rows in (slice(0, 3), slice(0, 4), slice(20, 21)):
        yield Example(f"rows {rows}", (p[rows], t[rows]), {"divisor": 4.0})


def _special_step_checks(_name: str, draw: Draw) -> Iterator[Example]:
    size = 3 * 4096 + 7
    bads = itertools.cycle((np.nan, np.inf, -np.inf))
    places = [(1, i) for i in (0, 0, 0, 15, 4095, 4096, size - 8, size - 1)]
    for which, i in [(0, 0), (0, 0), (0, 0), *places, (2, 0), (2, -1), (2, 0), (2, -1)]:
        given = np.ones(1, draw.arithmetic), draw.wide(size), draw.rng.random((2, 3, 101))
        given[which].flat[i] = bad = next(bads)
        yield Example(f"{bad} at {i} of {which}", given, {"clip": 1.0})
    for clip in (None, 1e30, 1.0):  # a norm whose square an optimizer in float32 cannot hold
        args = np.ones(1, draw.arithmetic), np.full(4, 1e19, draw.arithmetic), np.zeros((1, 3, 0))
        yield Example(f"large, clip {clip}", args, {"clip": clip})


def _special_averages(_name: str, draw: Draw) -> Iterator[Example]:
    for example in _averages(draw):
        example.args[0].flat[0] = np.nan
        yield example


def _special_correct(_name: str, draw: Draw) -> Iterator[Example]:
    output, codes = softmax(draw, 6, 100).args
    codes[[1, 4]] = -1, 2**40
    yield Example("numbers of no class", (output, codes))


def _special_updates(name: str, draw: Draw) -> Iterator[Example]:
    for options in ({}, {"weight_decay": 0.0}, *RULE_CONTRACTS[name].variants.values()):
        given = {k: v for k, v in options.items() if k not in ("absent", "frozen")}
        example = flat(draw, name, 100, frozen=((90, 95),), **given)
        for first in (34, 56):  # where parameters decay, and where they do not
            for i, array in enumerate(example.args[: 2 + len(RULES[name].slots)]):
                array[3 * i + first : 3 * i + first + 3] = np.nan, np.inf, -0.0
        yield example
    for ok in (True, False):
        example = flat(draw, name, 1003, ok=ok, frozen=((0, 4), (500, 700)))
        # Beyond float16, below its least, a sign, above a tie of bfloat16; then gradients and slots of frozen elements.
        example.args[0][:4] = 1e5, 3e-8, -0.0, 1 + 2.0**-9 + 2.0**-20
        for array in example.args[1 : 2 + len(RULES[name].slots)]:
            array[[501, 600]] = np.inf, np.nan
        yield example


SPECIAL = {
    "softmax_cross_entropy": _special_softmaxes,
    "binary_cross_entropy": _special_outputs,
    "mean_squared_error": _special_outputs,
    "check_step": _special_step_checks,
    "average": _special_averages,
    "correct": _special_correct,
}
