"""Times `Trainer(watch="activations")`: a sample, a step, and their ratio at the default interval.

    python -m tests.benchmarks.watching --rounds 300

Samples and steps alternate in one process, so that a busy machine slows both. Prints medians and least times.
"""

import argparse
import json
import statistics
import time
from itertools import pairwise

import numpy as np

import bnengine as bn
from bnengine.data import ArraySource, order
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.training import Activations, Trainer
from bnengine.training.activations import EVERY
from bnengine.training.resident import Resident

CASES = {"small": ((64, 32, 10), 32), "digits": ((64, 100, 100, 10), 64), "MNIST": ((784, 512, 512, 10), 256)}
TARGET = 0.01


def measured(widths: tuple[int, ...], batch: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of steps and of samples."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8 * batch, widths[0])).astype(np.float32)
    y = rng.integers(0, widths[-1], len(x))
    layers: list[bn.Layer] = []
    for inputs, width in pairwise(widths[:-1]):
        layers += [bn.Dense(inputs, width), bn.BatchNorm(width), bn.Activation("relu")]
    network = bn.Sequential(*layers, bn.Dense(*widths[-2:]), backend="numpy")
    trainer, watch = Trainer(network, "adam", loss=SoftmaxCrossEntropy(), progress="quiet"), Activations(every=1)
    source = ArraySource(x, y)
    resident = Resident(source, trainer.step.inputs)
    trainer.step.schedule([1e-3] * 8)
    rows = [[slice(a, a + batch)] for a in range(0, len(x), batch)]
    steps, samples = list[float](), list[float]()
    for i in range(rounds):
        positions = order(len(x), seed=0, epoch=i)
        resident.start(positions, rows)
        samples.append(_seconds(lambda: watch.step_begins(trainer, resident)))
        steps.append(_seconds(lambda: [trainer.step.next(resident) for _ in rows]) / len(rows))
    return steps[rounds // 10 :], samples[rounds // 10 :]


def _seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print a line of JSON for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    for name, (widths, batch) in CASES.items():
        steps, samples = measured(widths, batch, rounds)
        figures: dict[str, object] = {"network": name, "widths": widths, "batch": batch, "every": EVERY}
        for kind, of in (("median", statistics.median), ("least", min)):
            step, sample = of(steps), of(samples)
            figures |= {f"step_{kind}_us": round(step * 1e6, 1), f"sample_{kind}_us": round(sample * 1e6, 1)}
            figures[f"overhead_{kind}"] = round(sample / step / EVERY, 5)
        print(json.dumps(figures | {"target": TARGET}))


if __name__ == "__main__":
    main()
