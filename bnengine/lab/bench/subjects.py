"""What a contender hands to the clock, made from what its framework can do: train, predict, run an op."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..._typing import Array
from .ops import OPS, op_of
from .workloads import AGREED, Data, Workload

SAMPLED = 1 << 16  # elements of a result that are compared
Call = Callable[[], Any]


class Subject(NamedTuple):
    """`run(n)` makes n calls; `answer`: losses or a sample of the result, and facts for the row, as JSON values.

    On a CPU `run` returns when the calls are done; on a GPU it may return before.
    """

    run: Callable[[int], None]
    answer: dict[str, Any]


class Training:
    """A workload's training from its initial weights, epoch after epoch in the order of `data`.

    A framework defines `reset`: back to the initial weights; `go(epoch, batch, most)`: up to `most` steps from this
    batch on, without waiting for a GPU, returning how many; `loss` of the last step.
    """

    reset: Callable[[], None]
    go: Callable[[int, int, int], int]
    loss: Callable[[], float]

    def __init__(self, workload: Workload, data: Data) -> None:
        self.workload, self.data, self.at = workload, data, 0

    def start(self) -> None:
        """Go back to the initial weights and the first batch."""
        self.at = 0
        self.reset()

    def run(self, steps: int) -> None:
        """Run steps without waiting for a GPU."""
        end = self.at + steps
        while self.at < end:
            epoch, batch = divmod(self.at, self.workload.batches)
            self.at += self.go(epoch % len(self.data.orders), batch, end - self.at)

    def losses(self) -> list[float]:
        """Return the losses of the first steps."""
        self.start()
        values = []
        for _ in range(AGREED):
            self.run(1)
            values.append(self.loss())
        return values


class Peer:
    """A framework as it runs one subject; `facts` go into the answer.

    A framework defines `put(array, dtype, shape)`: a copy, repeated to fill the shape; `op(name, arrays)`;
    `prediction(workload, rows)`; `training(workload, data, precision, at_once)`, ready to run, many steps in one call
    if it can do them `at_once`.
    """

    put: Callable[[Array, str, tuple[int, ...]], Any]
    op: Callable[[str, list[Any]], Subject]
    prediction: Callable[[Workload, Array], Subject]
    training: Callable[[Workload, Data, Any, bool], Training]
    cuts = False  # whether parameters are rows of a matrix where a case has several tensors

    def __init__(self, **facts: Any) -> None:
        self.facts = facts

    def subject(self, kind: str, given: dict[str, Any], bounded: bool) -> Subject:
        """Make what is timed of a case; `bounded`: the answer of a training has the bounds for others' losses too."""
        if kind in ("kernel", "product"):
            op, shape, dtype = op_of(given, self.cuts)
            return self.op(op, OPS[op].arrays(shape, dtype, self.put))
        workload = Workload.from_json(given)
        if kind == "prediction":
            return self.prediction(workload, workload.unseen_rows())
        precision = given.get("precision", "highest")
        training = self.training(workload, workload.data(), precision, kind == "steps")
        self.facts |= self.compared(training, precision) if bounded else {"losses": training.losses()}
        training.start()
        return Subject(training.run, self.facts)

    def compared(self, training: Any, precision: str) -> dict[str, Any]:
        """Return the losses and their bounds."""
        raise NotImplementedError

    def called(self, call: Call, result: Any = None) -> Subject:
        """Make a subject of a call and a sample of its result."""
        sample = self.host(call() if result is None else result)
        return Subject(repeated(call), {"sample": sample.astype(float).tolist(), **self.facts})

    def host(self, result: Any) -> Array:
        """Return the elements of a result that are compared, in NumPy's memory."""
        return np.ravel(result)[:SAMPLED]


def repeated(call: Call) -> Callable[[int], None]:
    """Return a function that makes n calls."""

    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run
