"""Record the distributions of a network's activations during training, on a few steps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..layers import Context, Dropout, Placed, chain
from ..layers.tap import tap
from ..runtime.memory import Memory
from ..validation import choice, integer
from .callbacks import Callback, Record, TrainingRun
from .rows import Rows

EVERY = 5000  # steps between samples: a sample takes as long as 1 to 45 steps
VALUES = 16_384  # of a layer at most, for moments and percentiles
PERCENTILES = 15, 50, 85  # as in figure 1 of Ioffe and Szegedy


class Activations(Callback):
    """Records the distribution of each layer's outputs on every `every`-th step; for `Trainer(watch=...)`.

    Also after the first 0, 1, 2, 5, 10, 20, 50, ... steps, when most changes. For a sample, the first micro-batch of
    the step runs forward once more, in training mode, with that step's dropout, op by op and in other memory. So
    training continues to the same bits.

    An epoch's record gets "activations": {"steps": [...], "layers": {place: {name: [...]}}}, with one value a sample:

    - "steps": the steps before the sample; a place is the layer's number, as in `state_dict`.
    - "mean", "std", "skewness", "kurtosis": of all units together, over at most 16,384 values of the first rows.
      Skewness and kurtosis are the third and fourth standardized moments: 0 and 3 for normal values, 0 if std is 0.
    - "p15", "p50", "p85": percentiles of the same values.
    - "dead": the share of units with the same value in every row.

    An epoch without a sample has no such entry.

    Args:
        every: steps between two samples.

    Raises:
        InputError: `every` is not an integer of at least 1.
    """

    name = "activations"

    def __init__(self, every: int = EVERY) -> None:
        self.every = integer("Activations", "every", every, least=1)
        self.reset()

    def reset(self) -> None:
        self.done = 0  # steps
        self._steps: list[int] = []
        self._layers: dict[str, dict[str, list[float]]] = {}

    def step_begins(self, trainer: TrainingRun, rows: Rows) -> None:
        """Take a sample if one is due."""
        if self.done % self.every == 0 or (self.done < self.every and _is_round(self.done)):
            self._steps.append(self.done)
            self._sample(trainer, rows)

    def steps_ahead(self, trainer: TrainingRun) -> int:  # noqa: ARG002
        """Stop at the next sample at the latest, and at each 1, 2 and 5 times a power of ten."""
        power = int("1" + "0" * (len(str(self.done)) - 1))
        following = next(n for n in (power, 2 * power, 5 * power, 10 * power) if n > self.done)
        return min(following, self.done // self.every * self.every + self.every) - self.done

    def _sample(self, trainer: TrainingRun, rows: Rows) -> None:
        network, batch = trainer.network, rows.batches()[0]
        backend, x = network.backend, network.asarray(batch.x)
        keys = network.seed, trainer.step.state.counters[:1], backend.asarray(batch.samples, "int64")
        run = Context(True, Memory(), network.statistics.like(), *keys, products=network.products)
        with np.errstate(all="ignore"):  # the training checks what is not finite
            chain(tap(network.fused, self._recorder(backend.to_numpy)), x, run)

    def _recorder(self, read: Any) -> Any:
        def record(here: Placed, y: Array) -> None:
            if isinstance(here.layer, Dropout):
                return
            series = self._layers.setdefault(here.place, {})
            for name, value in described(read(y)).items():
                series.setdefault(name, []).append(value)

        return record

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:  # noqa: ARG002
        if self._steps:
            record["activations"] = {"steps": self._steps, "layers": self._layers}
            self._steps, self._layers = [], {}

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "steps": self._steps, "layers": self._layers}

    def load(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:  # noqa: ARG002
        self.done, self._steps, self._layers = state["done"], list(state["steps"]), dict(state["layers"])


def _is_round(steps: int) -> bool:
    """Whether `steps` is 1, 2 or 5 times a power of ten."""
    return str(steps).rstrip("0") in ("1", "2", "5")


def described(y: Array) -> dict[str, float]:
    """Return what `Activations` records of outputs (..., units), NumPy of any floating dtype; computed in float64."""
    rows = y.reshape(-1, y.shape[-1])
    dead = float((rows == rows[0]).all(axis=0).mean())
    taken = rows[: max(2, VALUES // rows.shape[1])].ravel()
    values = taken.astype(np.float64)
    mean = float(values.mean())
    z = values - mean
    square = z * z
    var = float(square.mean())
    skewness = float(np.dot(square, z)) / z.size / var**1.5 if var else 0.0
    kurtosis = float(np.dot(square, square)) / z.size / var**2 if var else 0.0
    low, middle, high = _percentiles(np.sort(taken))
    moments = {"mean": mean, "std": var**0.5, "skewness": skewness, "kurtosis": kurtosis, "dead": dead}
    return moments | {"p15": low, "p50": middle, "p85": high}


def _percentiles(ordered: Array) -> Iterator[float]:
    """Yield the PERCENTILES of sorted values, interpolated linearly."""
    for percent in PERCENTILES:
        place = (ordered.size - 1) * percent / 100
        below = int(place)
        a, b = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
        yield a + (b - a) * (place - below)


def get_activations(watch: Any) -> Activations | None:
    """Return the callback for `Trainer(watch=)`: None, "activations", or an `Activations`."""
    if watch is None or isinstance(watch, Activations):
        return watch
    choice("Trainer", "watch", watch, ("activations",), cure="Or pass None, or an Activations(every=...).")
    return Activations()
