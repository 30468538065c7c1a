"""Whether a contender computes the same training: its losses beside ours, within a bound that is measured, too.

Two right programs round differently, and training makes that grow: Adam's first moves are lr sign(g), whatever the size
of g, and batch normalisation passes a deep network's differences on enlarged. How much, depends on the network. So the
bound is our own answer to roundings: the training is repeated from weights that were moved by `MOVED`, and the largest
change of the loss up to a step, times 3, is what another program may be off by there.

MOVED: in float32, 16 units of rounding, what the sum of some 250 products is off by (the square root of their number).
In tf32 and bfloat16, 2 units: operands are rounded, and summed in float32.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple, Protocol

import numpy as np

from .timing import Deadline, TimeLimit
from .workloads import AGREED, UNIT

MOVED = {"highest": 16 * UNIT["highest"], "tf32": 2 * UNIT["tf32"], "bfloat16": 2 * UNIT["bfloat16"]}
ENDLESS = Deadline(None)
MOVES = 3  # repetitions, each with other signs
FACTOR = 3.0


class Trainable(Protocol):
    """What can be trained from the initial weights on, and tells its loss."""

    def start(self) -> None:
        """Begin anew."""

    def run(self, steps: int) -> None:
        """Go on for so many steps."""

    def loss(self) -> float:
        """The loss of the last step."""


class Agreement(NamedTuple):
    """Loss at step 20, how far it is from ours as a share of ours, what is allowed; `void` says why, or is None."""

    loss: float
    difference: float
    bound: float
    void: str | None


def losses(one: Trainable, until: Deadline = ENDLESS) -> list[float]:
    """The loss of each of the first steps; TimeLimit where the deadline comes before the last of them."""
    one.start()
    return losses_from_here(one, until)


def losses_from_here(one: Trainable, until: Deadline = ENDLESS) -> list[float]:
    """The loss of each of the next steps; TimeLimit as above."""
    found: list[float] = []
    for _ in range(AGREED):
        if until.over:
            raise TimeLimit(f"no time was left to compare losses, after {len(found)} steps")
        one.run(1)
        found.append(one.loss())
    return found


def moved(weights: Mapping[str, np.ndarray], by: float, seed: int) -> dict[str, np.ndarray]:
    """The matrices' elements larger or smaller by the share `by`; everything else as it is."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, array in weights.items():
        signs = rng.integers(0, 2, array.shape) * 2 - 1
        state[name] = (array * (1 + by * signs)).astype(array.dtype) if name.endswith(".W") else array
    return state


def bounds(base: Sequence[float], repeated: Sequence[Sequence[float]]) -> list[float]:
    """What a loss may differ by at each step, as a share: 3 times the largest change so far, and 10 roundings.

    The roundings are float32's in every precision: losses are computed and summed in it.
    """
    largest, found = 0.0, []
    for t, loss in enumerate(base):
        largest = max([largest, *(abs(other[t] / loss - 1) for other in repeated)])
        found.append(FACTOR * largest + 10 * UNIT["highest"])
    return found


def compare(base: Sequence[float], theirs: Sequence[float], allowed: Sequence[float]) -> Agreement:
    """Whether all losses agree; the figures are the last step's."""
    differences = [abs(b / a - 1) if isfinite(b) else float("inf") for a, b in zip(base, theirs, strict=True)]
    void = None
    for t, (difference, bound) in enumerate(zip(differences, allowed, strict=True), start=1):
        if not difference <= bound:
            void = (
                f"at step {t} the loss is {theirs[t - 1]:.7g}, ours {base[t - 1]:.7g}: a difference of "
                f"{difference:.2g}, {bound:.2g} is allowed"
            )
            break
    return Agreement(theirs[-1], differences[-1], allowed[-1], void)
