"""Examples of losses and updates that are cut in several blocks and chunks, which do not end evenly."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bnengine.contracts.update import typical
from bnengine.ops import Example
from bnengine.ops.update import RULES

LOSSES = ("binary_cross_entropy", "mean_squared_error")
FROZEN = ((0, 1), (4, 9), (5000, 17000), (30002, 30003))  # of 30003: at both ends, inside a block, over several


def softmax(
    rng: Any, rows: int, classes: int, dtype: Any = np.float32, kind: str = "numbers", weighted: bool = False,
    smoothing: float = 0.0,
) -> Example:  # fmt: skip
    """An example of softmax_cross_entropy, by what it has."""
    logits = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    numbers, probabilities = rng.integers(0, classes, rows), rng.dirichlet(np.ones(classes), rows).astype(dtype)
    weights = [rng.random(n).astype(dtype) for n in (classes, rows)] if weighted else []
    target = numbers if kind == "numbers" else probabilities
    return Example(kind, (logits, target, *weights), {"divisor": float(rows), "label_smoothing": smoothing})


def outputs(rng: Any, rows: int, width: int, dtype: Any = np.float32, weighted: bool = True) -> Example:
    """An example of a loss of single outputs."""
    p, t = (rng.random((rows, width)).astype(dtype) for _ in range(2))
    weights = [rng.random(rows).astype(dtype)] if weighted else []
    return Example("outputs", ((p - dtype(0.5)) * dtype(9), t, *weights), {"divisor": float(rows)})


def flat(rng: Any, name: str, size: int, dtype: Any = np.float32, ok: bool = True, **options: Any) -> Example:
    """An example of an optimizer with all of its state."""
    p, g = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    rule = RULES[name]
    slots = typical(rule, {slot: np.abs(rng.standard_normal(size)).astype(dtype) for slot in rule.slots})
    table = (rng.random((3, rule.columns)) * 0.9 + 0.1).astype(dtype)
    control = table, np.asarray([9, 1, 0, 0, 0]), np.asarray([ok]), rng.random(1).astype(dtype)
    return Example(name, (p, g, *slots, *control), {"decay_end": size // 2 + 1, "weight_decay": 0.1, **options})


def large(name: str) -> Iterator[Example]:
    """Of an op; none where there are none."""
    rng = np.random.default_rng(11)
    if name == "softmax_cross_entropy":
        for kind in ("numbers", "probabilities"):
            yield softmax(rng, 70, 1003, kind=kind)
            yield from (softmax(rng, 1003, 37, kind=kind, weighted=True, smoothing=s) for s in (0.0, 0.1))
    elif name == "correct":
        yield from (Example(k, softmax(rng, 3001, 33, kind=k).args) for k in ("numbers", "probabilities"))
    elif name in LOSSES:
        yield outputs(rng, 10007, 3)
        yield outputs(rng, 20001, 1, weighted=False)
    elif name in RULES:
        yield flat(rng, name, 30003, frozen=FROZEN)
        yield flat(rng, name, 30003, ok=False)
    elif name == "check_step":
        gradients, pending = rng.standard_normal(50001).astype(np.float32), rng.random((2, 3, 1001))
        scaling = np.asarray([4.0, 0.0, 0.0, 0.0], np.float32)
        yield Example("check_step", (np.ones(1, np.float32), gradients, pending, scaling), {"clip": 1.0})
    elif name == "average":
        a, b = (rng.standard_normal((3, 10001)) for _ in range(2))
        yield Example("average", (a, b, np.asarray([True])), {"decay": 0.99})
