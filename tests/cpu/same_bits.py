"""Trainings and the digests of all that they leave: python -m tests.cpu.same_bits 1,2 3 prints them as JSON.

BNENGINE_ISA says for which instruction set; each training is run as a plan on each of the first numbers of threads, and
op by op on each of the second.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bnengine import fused, threads
from bnengine.data import Batch, load_digits
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer, Residual
from bnengine.losses import BinaryCrossEntropy, LossFunction, MeanSquaredError, SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from bnengine.optim.schedules import OneCycle
from bnengine.training.state import Average
from bnengine.training.step import Step

STEPS = 200
RAGGED = 7  # in every RAGGED-th step the rows end early, as at the end of an epoch


class Training(NamedTuple):
    """What is trained, on how many rows a micro-batch, on what targets."""

    layers: Callable[[], list[Layer]]
    optimizer: Optimizer
    rows: tuple[int, ...]
    loss: LossFunction = SoftmaxCrossEntropy()
    options: dict[str, Any] = {}  # noqa: RUF012 -- a default of a tuple's field, never written to
    dtype: str = "float32"
    weighted: bool = False


def hidden(inputs: int, width: int, activation: str = "relu", rate: float = 0.0) -> list[Layer]:
    drops = [Dropout(rate)] if rate else []
    return [Dense(inputs, width), BatchNorm(width), Activation(activation), *drops]


def plain() -> list[Layer]:
    return [*hidden(64, 100), *hidden(100, 100), Dense(100, 10)]


def deep() -> list[Layer]:
    first, last = hidden(64, 100, rate=0.1), Dense(100, 10)
    return [*first, *(layer for _ in range(4) for layer in hidden(100, 100, rate=0.1)), last]


def residual() -> list[Layer]:
    body = [Dense(72, 72), BatchNorm(72, decay=None), Activation("gelu"), Dense(72, 72), BatchNorm(72)]
    other = [Dense(72, 72), Activation("sigmoid"), Dropout(0.2), Dense(72, 72)]
    return [*hidden(64, 72, "gelu"), Residual(*body), Activation("sigmoid"), Residual(*other), Dense(72, 10)]


def binary() -> list[Layer]:
    return [*hidden(64, 130, "tanh"), *hidden(130, 33, "leaky_relu"), Dense(33, 1)]


def regression() -> list[Layer]:
    return [Dense(64, 37), Activation("gelu"), *hidden(37, 70), Dense(70, 3)]


TRAININGS = {
    "plain": Training(plain, Adam(), (64,)),
    "deep": Training(deep, RMSprop(centered=True, momentum=0.9), (170,), options={"clip_norm": 1.0}),
    "residual": Training(
        residual, AdamW(amsgrad=True), (90, 41), SoftmaxCrossEntropy(label_smoothing=0.1), {"average": Average(0.99)}
    ),
    "binary": Training(
        binary, SGD(momentum=0.9, weight_decay=1e-3), (96, 96), BinaryCrossEntropy(),
        {"statistics": "per_micro_batch"}, weighted=True,
    ),
    "regression": Training(
        regression, SGD(momentum=0.9, nesterov=True), (1100,), MeanSquaredError(), {"clip_norm": 0.5}, dtype="float64"
    ),
}  # fmt: skip


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return found.x.reshape(-1, 64) / 16.0, found.y


@cache
def batches(name: str, t: int) -> list[Batch]:
    """The micro-batches of step t of a training; the last one is ragged now and then."""
    training, (x, y) = TRAININGS[name], digits()
    rng, made = np.random.default_rng(t), []
    for i, rows in enumerate(training.rows):
        last = i == len(training.rows) - 1 and t % RAGGED == RAGGED - 1
        chosen = rng.integers(0, len(x), rows // 5 + 1 if last else rows)
        target: Any = y[chosen]
        if isinstance(training.loss, BinaryCrossEntropy):
            target = (target % 2)[:, None].astype(np.float64)
        elif isinstance(training.loss, MeanSquaredError):
            target = x[chosen][:, [20, 30, 40]] - (target / 10)[:, None]
        weights = rng.random(len(chosen)) + 0.5 if training.weighted else None
        made.append(Batch(x[chosen].astype(training.dtype), target, weights, chosen))
    return made


def make(name: str, *, replay: bool, steps: int = STEPS) -> Step:
    """The step of a training, with a learning rate that rises and falls."""
    training = TRAININGS[name]
    network = Sequential(*training.layers(), backend="numpy", dtype=training.dtype, seed=3)
    step = Step(network, training.optimizer, training.loss, replay=replay, **training.options)
    step.schedule(OneCycle(5e-3, total_steps=steps).for_steps(0, steps))
    return step


def state(step: Step) -> dict[str, bytes]:
    """All that a step leaves, every bit by name."""
    network = step.network
    arrays = {"parameters": network.parameters.array, "statistics": network.statistics.array}
    arrays |= {
        "loss": step.state.value,
        "gradients": step.state.gradients.array,
        "sums": step.state.sums,
        "counters": step.state.counters,
    }
    arrays |= {f"verdict {name}": a for name, a in step.state.checked._asdict().items() if a is not None}
    arrays |= {f"state {name}": flat.array for name, flat in step.state.slots.items() if flat is not None}
    arrays |= {f"average {i}": flat.array for i, flat in enumerate(step.state.averaged or ())}
    return {name: a.tobytes() for name, a in arrays.items()}


def digests(name: str, *, replay: bool) -> dict[str, str]:
    """Of the losses of all steps, and of what the last one leaves."""
    step, losses = make(name, replay=replay), hashlib.sha256()
    for t in range(STEPS):
        step(batches(name, t))
        losses.update(step.state.value.tobytes())
    assert {mode.how for mode in step.modes()} == ({"one call"} if replay else set()), step.modes()
    report = step.report()
    assert (report.steps, report.skipped) == (STEPS, 0)
    return {"losses": losses.hexdigest()} | {k: hashlib.sha256(v).hexdigest() for k, v in state(step).items()}


def main(plans: str, eager: str) -> None:
    found = {}
    for replay, counts in ((True, plans), (False, eager)):
        for count in map(int, counts.split(",")):
            threads.set(count)
            for name in TRAININGS:
                run = f"{'a plan' if replay else 'op by op'} on {count} threads"
                found.setdefault(name, {})[run] = digests(name, replay=replay)
    print(json.dumps({"isa": fused.native().isa(), "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
