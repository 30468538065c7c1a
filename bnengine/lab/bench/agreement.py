"""Whether a contender computes the same training: its losses equal ours within a measured bound.

Two correct programs round differently, and training amplifies the difference: Adam's first steps are lr sign(g)
whatever the size of g, and batch norm in a deep network enlarges what it passes on. The bound is therefore our own
response to rounding: the training is repeated from weights that are changed by `MOVED`, and a loss may differ by 3
times the largest change of our loss up to that step.

MOVED: in float32 16 rounding units, the error of a sum of about 250 products (the square root of their number). In
tf32 and bfloat16 2 units, because factors are rounded and sums are in float32.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from .workloads import UNIT

MOVED = {"highest": 16 * UNIT["highest"], "tf32": 2 * UNIT["tf32"], "bfloat16": 2 * UNIT["bfloat16"]}
MOVES = 3  # repetitions, each with different signs
FACTOR = 3.0


class Agreement(NamedTuple):
    """Loss at step 20, its relative difference from ours, the bound; `void` is why they disagree, or None."""

    loss: float
    difference: float
    bound: float
    void: str | None


def moved(weights: Mapping[str, np.ndarray], share: float, seed: int) -> dict[str, np.ndarray]:
    """Return the state with each element of a matrix larger or smaller by `share`."""
    state, rng = dict(weights), np.random.default_rng(seed)
    for name, array in weights.items():
        signs = rng.integers(0, 2, array.shape) * 2 - 1
        if name.endswith(".W"):
            state[name] = (array * (1 + share * signs)).astype(array.dtype)
    return state


def bounds(base: Sequence[float], repeated: Sequence[Sequence[float]]) -> list[float]:
    """Return the bound at each step, as a share: 3 times the largest change so far, and 10 roundings of float32.

    Losses are computed and summed in float32 in every precision.
    """
    changes = [max((abs(losses[t] / loss - 1) for losses in repeated), default=0.0) for t, loss in enumerate(base)]
    return [FACTOR * max(changes[: t + 1]) + 10 * UNIT["highest"] for t in range(len(base))]


def compare(base: Sequence[float], theirs: Sequence[float], allowed: Sequence[float]) -> Agreement:
    """Compare all losses; the figures are those of the last step."""
    differences = [abs(b / a - 1) if isfinite(b) else float("inf") for a, b in zip(base, theirs, strict=True)]
    void = None
    if wrong := [t for t, bound in enumerate(allowed) if not differences[t] <= bound]:
        t = wrong[0]
        void = f"at step {t + 1} the loss is {theirs[t]:.7g}, ours {base[t]:.7g}: a difference of {differences[t]:.2g}"
        void += f", {allowed[t]:.2g} is allowed"
    return Agreement(theirs[-1], differences[-1], allowed[-1], void)


def disagreement(ours: np.ndarray, theirs: np.ndarray, tolerance: float | None) -> str | None:
    """Return why two results differ, as a share of the largest element; None if they agree or need not."""
    if tolerance is None:
        return None
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        return f"the results are of shape {a.shape} and {b.shape}"
    off = float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(a))), np.finfo(np.float64).tiny))
    return None if off <= tolerance else f"the results differ by {off:.2g} of the largest, {tolerance:.2g} is allowed"
