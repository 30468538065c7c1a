"""Small networks, shapes and options at random: what is drawn prints as what makes it again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from bnengine.data import Batch
from bnengine.lab.verify.steps import TrainingCase
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from bnengine.losses import BinaryCrossEntropy, LossFunction, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.ops.activations import ACTIVATIONS
from bnengine.optim.optimizers import SGD, Optimizer, RMSprop
from tests.optimizers import EVERY, FULL

STEPS = 4  # the last one is ragged
WIDTHS = (1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 70)
ROWS = (1, 2, 3, 7, 16, 17, 40)
MORE = (
    SGD(momentum=0.5, nesterov=True, weight_decay=0.1),
    RMSprop(centered=True, momentum=0.5, weight_decay=0.1),
    *FULL,
)


class Block(NamedTuple):
    """Dense, BatchNorm with options (None: without), an activation, dropout; all of it in a residual if it fits."""

    width: int
    norm: dict[str, Any] | None
    activation: str
    rate: float
    residual: bool

    def layers(self, inputs: int) -> list[Layer]:
        made: list[Layer] = [Dense(inputs, self.width)]
        made += [] if self.norm is None else [BatchNorm(self.width, **self.norm)]
        kind = [Activation(self.activation)]
        body = [Residual(*made), *kind] if self.residual and inputs == self.width else [*made, *kind]
        return [*body, *([Dropout(self.rate)] if self.rate else [])]


class Drawn(NamedTuple):
    """A training, in plain values."""

    inputs: int
    blocks: tuple[Block, ...]
    outputs: int
    loss: LossFunction
    optimizer: Optimizer
    rows: tuple[int, ...]
    ragged: int
    options: dict[str, Any]
    weighted: bool
    offset: float  # of the input, where a BatchNorm is the first to take it off
    seed: int

    def layers(self) -> tuple[Layer, ...]:
        made, width = list[Layer](), self.inputs
        for block in self.blocks:
            made += block.layers(width)
            width = block.width
        return (*made, Dense(width, self.outputs))

    def batches(self, t: int) -> list[Batch]:
        """The micro-batches of step t, in numbers that float32 has."""
        rng, made = np.random.default_rng((self.seed, t)), []
        for i, rows in enumerate(self.rows):
            last = t == STEPS - 1 and i == len(self.rows) - 1
            n = min(rows, self.ragged) if last else rows
            x = (rng.standard_normal((n, self.inputs)) + self.offset).astype(np.float32).astype(np.float64)
            if isinstance(self.loss, SoftmaxCrossEntropy):
                y: Any = rng.integers(0, self.outputs, n)
            elif isinstance(self.loss, BinaryCrossEntropy):
                y = rng.integers(0, 2, (n, self.outputs)).astype(np.float64)
            else:
                y = rng.standard_normal((n, self.outputs)).astype(np.float32).astype(np.float64)
            weights = rng.integers(1, 9, n) / 4 if self.weighted else None
            made.append(Batch(x, y, weights, rng.integers(0, 10**6, n)))
        return made

    @property
    def training(self) -> TrainingCase:
        """As the certificate takes it."""
        given: Callable[[int], list[Batch]] = self.batches
        shapes = self.rows, self.options, self.loss
        return TrainingCase("a random training", self.layers, self.optimizer, STEPS, *shapes, batches=given)


@st.composite
def drawn(draw: Any) -> Drawn:
    rows = tuple(draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=3)))
    ragged = draw(st.sampled_from(ROWS))
    single = 1 in rows or ragged == 1
    norms = st.fixed_dictionaries(
        {
            "decay": st.sampled_from((0.9, 0.5, None)),
            "eps": st.sampled_from((1e-5, 1e-3)),
            "gamma": st.booleans(),
            "beta": st.booleans(),
            "variance": st.sampled_from(("unbiased", "biased")),
            "one_value": st.just("running" if single else "raise"),
        }
    )
    block = st.builds(
        Block,
        st.sampled_from(WIDTHS),
        st.none() | norms | norms,
        st.sampled_from(tuple(ACTIVATIONS)),
        st.sampled_from((0.0, 0.0, 0.3)),
        st.booleans(),
    )
    blocks = draw(st.lists(block, min_size=1, max_size=3))
    if draw(st.booleans()):  # one width, so that residuals fit
        blocks = [b._replace(width=blocks[0].width) for b in blocks]
    outputs = draw(st.sampled_from(WIDTHS))
    losses = [st.just(BinaryCrossEntropy()), st.just(MeanSquaredError())]
    weights = st.none() | st.just(tuple(1 + i % 3 / 2 for i in range(outputs)))
    if outputs > 1:
        losses += [st.builds(SoftmaxCrossEntropy, st.sampled_from((0.0, 0.1)), weights)] * 2
    options = {
        "clip_norm": draw(st.sampled_from((None, 0.1, 10.0))),
        "statistics": draw(st.sampled_from(("merged", "per_micro_batch"))),
    }
    return Drawn(
        draw(st.sampled_from(WIDTHS)), tuple(blocks), outputs, draw(st.one_of(losses)),
        draw(st.sampled_from((*EVERY, *MORE))), rows, ragged, options, draw(st.booleans()),
        0.0 if blocks[0].norm is None else draw(st.sampled_from((0.0, 1000.0))), draw(st.integers(0, 10**6)),
    )  # fmt: skip
