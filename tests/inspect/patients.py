"""A healthy network for the doctor, and every fault to plant in it, at several strengths."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bnengine.inspect import Finding, doctor
from bnengine.layers import Activation, BatchNorm, Dense, Dropout, Layer
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import SGD, Optimizer

ROWS, FEATURES, WIDTH, CLASSES = 256, 8, 16, 3


@dataclass
class Patient:
    """A healthy network of two hidden layers with ReLU, its data, and facts about its training."""

    bias: bool = False
    between: list[Layer] = field(default_factory=list)  # the first Dense and its BatchNorm
    norm: dict[str, Any] = field(default_factory=dict)
    first_norm: dict[str, Any] = field(default_factory=dict)
    tail: list[Layer] = field(default_factory=list)
    decays: bool = False  # gamma and beta
    network_options: dict[str, Any] = field(default_factory=dict)
    shift: float = 0.0
    shown: bool = True  # whether the doctor sees the data
    steps: int = 1000
    batch: int = 64
    rest: int = 0  # rows of the last batch; 0: it is full
    optimizer: Optimizer | None = None
    decayed: float = 0.0  # the weight decay of all steps together, of SGD at a rate of 0.1
    changes: list[Callable[[Sequential, np.ndarray], None]] = field(default_factory=list)

    @property
    def x(self) -> np.ndarray:
        """Rows whose features have the mean `shift` and the standard deviation 1."""
        x = np.random.default_rng(7).standard_normal((ROWS, FEATURES))
        return ((x - x.mean(axis=0)) / x.std(axis=0) + self.shift).astype(np.float32)

    def network(self) -> Sequential:
        """The network with the statistics of its data, and what remains in them of mean 0 and variance 1."""
        norms = [BatchNorm(WIDTH, **self.norm | self.first_norm), BatchNorm(WIDTH, **self.norm)]
        for norm in norms:
            for handle in (norm.gamma, norm.beta):
                if handle is not None:
                    handle.decays = self.decays
        network = Sequential(
            Dense(FEATURES, WIDTH, bias=self.bias), *self.between, norms[0], Activation("relu"),
            Dense(WIDTH, WIDTH), norms[1], Activation("relu"), Dense(WIDTH, CLASSES), *self.tail,
            **{"backend": "numpy", "seed": 3} | self.network_options,
        )  # fmt: skip
        pending = network.forward(self.x, training=True, dropout=False).pending
        network.statistics.array[...] = pending.array
        network.statistics.array[0, :] = float(self.steps * self.batch)
        for norm in norms:
            left, found = norm.decay**self.steps if norm.decay else 0.0, norm.statistics.value
            found[1, ...] *= 1 - left
            found[2, ...] = left + (1 - left) * found[2, ...]
        for change in self.changes:
            change(network, self.x)
        return network

    def findings(self) -> list[Finding]:
        """The findings of the doctor."""
        rows = 20 * self.batch + self.rest
        settings = {"steps": self.steps, "batch_size": self.batch, "rows": rows, "learning_rate": 0.1}
        settings["optimizer"] = self.optimizer or SGD(weight_decay=self.decayed / self.steps)
        return doctor(self.network(), self.x if self.shown else None, None, settings)


def set_at(norm: int, name: str, row: Any, values: Any) -> Callable[[Sequential, np.ndarray], None]:
    """A change that writes `values` at `row` of gamma, beta or the statistics of the first BatchNorm, 0, or another."""

    def change(network: Sequential, _: np.ndarray) -> None:
        place = list(network.named_statistics())[norm].removesuffix("statistics")
        array = (network.named_parameters() | network.named_statistics())[place + name]
        changed = network.backend.to_numpy(array, copy=True)
        changed[row] = values
        array[...] = network.backend.asarray(changed)
        network.refresh()

    return change


def bias(patient: Patient, strength: str) -> None:
    """A bias directly before the BatchNorm, before another Dense in between, or before an activation."""
    patient.bias = True
    if strength == "activation":
        patient.between.append(Activation("tanh"))
    if strength == "dense":
        patient.between.append(Dense(WIDTH, WIDTH, bias=False))


def last_beta(patient: Patient, strength: str) -> None:
    """All of the last layer's normalized outputs, with or without gamma and beta."""
    if strength != "none":
        affine = strength == "affine"
        patient.tail.append(BatchNorm(CLASSES, gamma=affine, beta=affine))


def silent(patient: Patient, rows: int) -> None:
    """One unit of the first layer is above 0 in `rows` rows, 1 or 0; -1: no unit in any."""

    def change(network: Sequential, x: np.ndarray) -> None:
        z = x.astype(np.float64) @ np.asarray(network.named_parameters()["0.W"], np.float64)[:, 5]
        z = np.sort((z - z.mean()) / z.std())[::-1]
        set_at(0, "beta", 5, -(z[0] + z[1]) / 2 if rows else -z[0] * 1.01)(network, x)

    patient.changes.append(set_at(0, "beta", slice(None), -100.0) if rows < 0 else change)


def far_beta(patient: Patient, beta: float | list[float]) -> None:
    """beta of one unit, or of all, and no data to see them by."""
    patient.shown = False
    patient.changes.append(set_at(0, "beta", 5 if isinstance(beta, float) else slice(None), beta))


def gamma(patient: Patient, value: float) -> None:
    """gamma of one channel of 16, or 0 for all."""
    patient.changes.append(set_at(0, "gamma", slice(None) if value == 0 else 5, value))


def variance(patient: Patient, in_eps: float) -> None:
    """The running variance of one channel, or below eps of all, in units of eps."""
    patient.changes.append(set_at(0, "statistics", (2, slice(None) if in_eps < 1 else 5), in_eps * 1e-5))


def uncollected(patient: Patient, layers: int) -> None:
    """Some layers without statistics."""
    for norm in range(layers):
        patient.changes.append(set_at(norm, "statistics", slice(None), np.asarray([[0.0], [0.0], [1.0]])))


def broken_statistics(patient: Patient, value: float) -> None:
    """A running variance."""
    patient.changes.append(set_at(1, "statistics", (2, 3), value))


def convention(patient: Patient, layers: int) -> None:
    """The defaults of Keras in some layers."""
    keras = {"eps": 1e-3, "variance": "biased"}
    patient.first_norm |= keras if layers else {}
    patient.norm |= keras if layers == 2 else {}


def decayed_affine(patient: Patient, decay: float) -> None:
    patient.decays, patient.decayed = True, decay


def _set(name: str) -> Callable[[Patient, Any], None]:
    def plant(patient: Patient, value: Any) -> None:
        setattr(patient, name, value)

    return plant


def _first_norm(name: str) -> Callable[[Patient, Any], None]:
    def plant(patient: Patient, value: Any) -> None:
        patient.first_norm[name] = value

    return plant


def dropped(patient: Patient, rate: float) -> None:
    patient.between.append(Dropout(rate))


class Fault(NamedTuple):
    """A fault: the id of its finding, how to plant it, the severity at each strength ("" for none), and the layer."""

    id: str
    plant: Callable[[Patient, Any], None]
    strengths: dict[Any, str]
    layer: str


# Thresholds by hand: 0.9^34 = .0278 < sqrt(.1/1.9/64) = .0287 < 0.9^33 = .0309; 0.9^6 = .53; 1 - sqrt(.96) = .02020 <
# .0287/sqrt(2) = .02028 < 1 - sqrt(.959) = .0207; sqrt(4.3/5.3) = .9007, sqrt(4.2/5.2) = .8987; 2^-8 sqrt(15/16) =
# .00378; sqrt(63) = 7.937; rates .1: 1 - exp(-.1 .92) = .0879 < 1/sqrt(128) = .0884 < 1 - exp(-.1 .93) = .0888;
# exp(.2 .47) = 1.0986, exp(.2 .48) = 1.1008.
FAULTS = (
    Fault("cancelled-bias", bias, {"activation": "", "direct": "note", "dense": "note"}, "0"),
    Fault("uncentred-inputs", _set("shift"), {2.99: "", 3.01: "warning", 50.0: "warning"}, "0"),
    Fault("decay-on-affine", decayed_affine, {0.92: "", 0.93: "warning", 10.0: "warning"}, "1"),
    Fault("effective-learning-rate", _set("decayed"), {0.47: "", 0.48: "note", 100.0: "note"}, "0"),
    Fault("decay-slow", _set("steps"), {34: "", 33: "warning", 6: "error"}, "1"),
    Fault("variance-near-eps", variance, {4.3: "", 4.2: "warning", 0.1: "error"}, "1"),
    Fault("dead-gamma", gamma, {0.0039: "", 0.0037: "note", 0: "error"}, "1"),
    Fault("dead-units", silent, {1: "", 0: "note", -1: "error"}, "1"),
    Fault("dead-units", far_beta, {-7.93: "", -7.94: "note", (-7.94,) * WIDTH: "error"}, "1"),
    Fault("norm-on-output", last_beta, {"none": "", "affine": "warning", "plain": "error"}, "7"),
    Fault("dropout-before-norm", dropped, {0.04: "", 0.041: "warning", 0.5: "warning"}, "1"),
    Fault("last-batch-small", _set("rest"), {5: "", 4: "warning", 2: "warning"}, ""),
    Fault("batches-small", _set("batch"), {5: "", 4: "warning", 2: "error"}, ""),
    Fault("statistics-never-collected", uncollected, {0: "", 1: "error", 2: "error"}, "1"),
    Fault("statistics-not-finite", broken_statistics, {0.5: "", float("inf"): "error", -1.0: "error"}, "4"),
    Fault("other-convention", convention, {0: "", 1: "warning", 2: "note"}, "1"),
    Fault("decay-swapped", _first_norm("decay"), {0.51: "", 0.5: "warning", 0.1: "warning"}, "1"),
)  # fmt: skip
