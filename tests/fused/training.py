"""Small trainings for the simulated device: digits, every setting that a step can have, few and short launches."""

from typing import Any

import numpy as np

from bnengine import data
from bnengine.layers import Activation, BatchNorm, Dense, Dropout
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import AdamW
from bnengine.runtime.memory import Arena
from bnengine.training.resident import Resident
from bnengine.training.step import Step

DIGITS = data.load_digits()
X, Y = (DIGITS.x.reshape(-1, 64) / 16).astype(np.float32), DIGITS.y
ROWS = 45  # 3 micro-batches of 13 rows and a ragged one of 6, two to a step


def network(backend: Any, small: bool = False) -> Sequential:
    if small:
        return Sequential(Dense(64, 8), BatchNorm(8), Activation("relu"), Dense(8, 10), backend=backend, seed=3)
    first = Dense(64, 8), BatchNorm(8), Activation("relu"), Dropout(0.1)
    return Sequential(*first, Dense(8, 8), BatchNorm(8), Activation("tanh"), Dense(8, 10), backend=backend, seed=3)


def source(rows: int = ROWS, nan: int | None = None, weighted: bool = True) -> data.ArraySource:
    """Rows with weights; the input of row `nan` is not a number, which ArraySource would refuse at once."""
    x, weights = X[:rows].copy(), np.linspace(0.5, 1.5, rows, dtype=np.float32)
    made = data.ArraySource(x, Y[:rows], weights if weighted else None)
    if nan is not None:
        made.take = _poisoned(made.take, nan)
    return made


def _poisoned(take: Any, nan: int) -> Any:
    def taken(positions: np.ndarray) -> data.Batch:
        batch = take(positions)
        x = batch.x.copy()
        x[batch.samples == nan, 5] = np.nan
        return batch._replace(x=x)

    return taken


def make(backend: Any, steps: int, **options: Any) -> Step:
    """A step with clipping, decay, label smoothing, and a learning rate that falls with every step."""
    memory, small = Arena(options.pop("mode", "fused")), options.pop("small", False)
    loss = SoftmaxCrossEntropy(label_smoothing=0.1)
    step = Step(network(backend, small), AdamW(weight_decay=0.01), loss, clip_norm=1.0, memory=memory, **options)
    step.schedule([1e-2 * 0.999**t for t in range(steps)])
    return step


def epochs(step: Step, rows: data.ArraySource | Resident, steps: int, micro: int = 13) -> Any:
    """Train `steps` steps of two micro-batches each, in the order of each epoch; a value after each step."""
    held = rows if isinstance(rows, Resident) else None
    rows = rows.source if isinstance(rows, Resident) else rows
    parts = data.groups(rows.rows, micro)
    groups = [parts[i : i + 2] for i in range(0, len(parts), 2)]
    done = epoch = 0
    while True:
        order = data.order(rows.rows, seed=1, epoch=epoch)
        if held is not None:
            held.start(order, groups)
        for group in groups:
            if done == steps:
                return
            if held is not None:
                step.next(held)
            else:
                step([rows.take(order[p]) for p in group])
            done += 1
            yield done
        epoch += 1


def snapshot(step: Step) -> dict[str, bytes]:
    """Every bit of a step's state."""
    net, read = step.network, step.backend.to_numpy
    arrays: dict[str, Any] = {
        "parameters": net.parameters.array,
        "statistics": net.statistics.array,
        "value": step.state.value,
    }
    arrays |= {"gradients": step.state.gradients.array, "sums": step.state.sums, "counters": step.state.counters}
    arrays |= {name: flat.array for name, flat in step.state.slots.items() if flat is not None}
    arrays |= step.state.checked._asdict()
    arrays |= {"copy16": net.copy16 and net.copy16.array, "scaling": step.state.scaling.array}
    return {name: read(array).tobytes() for name, array in arrays.items() if array is not None}
