"""Distributions of a network's activations while it trains, taken on a step now and then."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..layers import Context, Dropout, Placed, chain
from ..layers.tap import tap
from ..runtime.memory import Memory
from ..validation import integer
from .callbacks import Callback, Record, TrainingRun
from .rows import Rows

EVERY = 5000  # steps from sample to sample: a sample costs as much as 1 to 45 steps
VALUES = 16_384  # of a layer's, at most, that moments and percentiles are taken of
PERCENTILES = 15, 50, 85  # those of Ioffe and Szegedy's figure 1


class Activations(Callback):
    """Records what each layer gives on every `every`-th step: `Trainer(watch=...)` takes it.

    Before the first of these it also looks behind 0, 1, 2, 5, 10, 20, 50 ... steps, when most happens. The first
    micro-batch of such a step passes once more before it, in training mode, with that step's own dropout, op by op in
    memory of its own: parameters, statistics, counters and plans stay, and training goes on to the same bits.
    An epoch's record gets "activations": {"steps": steps done before each sample, "layers": {place: {name: values, one
    a sample}}}, the place that of the list of layers. The names: "mean", "std", "skewness" and "kurtosis" (third and
    fourth standardised moment, 0 and 3 for normal values; 0 where std is 0), "p15", "p50", "p85" (percentiles), of all
    units together, over the first rows, of 16,384 values at most; "dead", the share of units that give one value in
    every row. An epoch without a sample has no such entry. Raises InputError.
    """

    name = "activations"

    def __init__(self, every: int = EVERY) -> None:
        self.every = integer("Activations", "every", every, least=1)
        self.done = 0  # steps
        self._steps: list[int] = []
        self._layers: dict[str, dict[str, list[float]]] = {}

    def step_begins(self, trainer: TrainingRun, rows: Rows) -> None:
        """Take a sample, if it is time."""
        if self.done % self.every == 0 or (self.done < self.every and _is_round(self.done)):
            self._steps.append(self.done)
            self._sample(trainer, rows)

    def steps_ahead(self, trainer: TrainingRun) -> int:  # noqa: ARG002
        """To the next sample at most: all 1, 2 and 5 times a power of ten are stopped at, also where none is due."""
        power = int("1" + "0" * (len(str(self.done)) - 1))
        following = next(n for n in (power, 2 * power, 5 * power, 10 * power) if n > self.done)
        return min(following, self.done // self.every * self.every + self.every) - self.done

    def _sample(self, trainer: TrainingRun, rows: Rows) -> None:
        network, batch = trainer.network, rows.batches()[0]
        backend, x = network.backend, network.asarray(batch.x)
        keys = network.seed, trainer.step.state.counters[:1], backend.asarray(batch.samples, "int64")
        run = Context(True, Memory(), network.statistics.like(), *keys, products=network.products)
        with np.errstate(all="ignore"):  # the training decides about what is not finite
            chain(tap(network.fused, self._see(backend.to_numpy)), x, run)

    def _see(self, read: Any) -> Any:
        def see(here: Placed, y: Array) -> None:
            if isinstance(here.layer, Dropout):
                return
            kept = self._layers.setdefault(here.place, {})
            for name, value in described(read(y)).items():
                kept.setdefault(name, []).append(value)

        return see

    def epoch_ends(self, trainer: TrainingRun, record: Record) -> None:  # noqa: ARG002
        if self._steps:
            record["activations"] = {"steps": self._steps, "layers": self._layers}
            self._steps, self._layers = [], {}

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "steps": self._steps, "layers": self._layers}

    def load(self, state: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:  # noqa: ARG002
        self.done, self._steps, self._layers = state["done"], list(state["steps"]), dict(state["layers"])


def _is_round(steps: int) -> bool:
    """Whether it is 1, 2 or 5 times a power of ten."""
    return str(steps).rstrip("0") in ("1", "2", "5")


def described(y: Array) -> dict[str, float]:
    """What `Activations` records of outputs (..., units), NumPy of any floating dtype; computed in float64."""
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
    own = {"mean": mean, "std": var**0.5, "skewness": skewness, "kurtosis": kurtosis, "dead": dead}
    return own | {"p15": low, "p50": middle, "p85": high}


def _percentiles(rising: Array) -> Iterator[float]:
    """PERCENTILES, straight lines between neighbours."""
    for percent in PERCENTILES:
        place = (rising.size - 1) * percent / 100
        below = int(place)
        a, b = float(rising[below]), float(rising[min(below + 1, rising.size - 1)])
        yield a + (b - a) * (place - below)


def get_watch(given: Any) -> Activations | None:
    """What `Trainer(watch=)` means: None, "activations", or an `Activations`."""
    if given is None or isinstance(given, Activations):
        return given
    if given != "activations":
        raise InputError(f"Trainer: watch {given!r} is not None, 'activations' or an Activations(every=...)")
    return Activations()
