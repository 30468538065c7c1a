"""What is neither an op nor a training: passes, predictions, initial values, schedules, metrics, data, repairs."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

import bnengine as bn
import bnengine.inspect as inspect

from . import networks, sources
from .cases import SCHEDULES
from .digests import Digests, digest, of_arrays, of_value
from .draws import codes, draw, share

Value = Callable[[], Digests]
LAYERS = {
    "usual": networks.usual("gelu", drop=0.2), "apart": networks.apart("tanh"), "residual": networks.residual,
    "shared": networks.shared, "odd": networks.odd, "deep": networks.deep, "wide": networks.wide,
}  # fmt: skip


def of_kernels() -> dict[str, Value]:
    """Computed by ops: by native kernels and by references."""
    found: dict[str, Value] = {}
    for name, layers in LAYERS.items():
        for dtype in ("float32", "float64"):
            found[f"pass: {name}, {dtype}"] = lambda layers=layers, dtype=dtype: passes(layers, dtype)
            found[f"predict: {name}, {dtype}"] = lambda layers=layers, dtype=dtype: predictions(layers, dtype)
    return found | {
        "defaults": defaults, "evaluate": evaluated, "fold": folded, "adapt": adapted, "recalibrate": recalibrated,
        "gap": gap, "conventions": conventions,
    }  # fmt: skip


def of_host() -> dict[str, Value]:
    """Computed on the host without functions of NumPy's: the same everywhere."""
    found: dict[str, Value] = {f"initial: {name}": lambda name=name: initial(name) for name in INITIALIZERS}
    found |= {f"schedule: {name}": lambda name=name: rates(name) for name in SCHEDULES}
    return found | {"metrics": metrics, "digits": digits, "split": splits, "preprocessing": preprocessing}


def of_numpy() -> dict[str, Value]:
    """Computed by functions of NumPy's that differ between its builds."""
    return {"initial: orthogonal": lambda: initial("orthogonal"), "metric: loss": loss_metric}


# -- ops ---------------------------------------------------------------------------------------------------------------


def loaded(layers: Callable[[], list[Any]], dtype: str) -> bn.Sequential:
    """A network with statistics, gamma and beta that no training gave."""
    network = bn.Sequential(*layers(), backend="numpy", dtype=dtype, seed=2**63 + 11)
    state = network.state_dict()
    for name, array in state.items():
        if name.endswith("running_count"):
            state[name] = np.full_like(array, 40)
        elif name.endswith("running_var"):
            state[name] = share(name, *array.shape, dtype=array.dtype) + np.asarray(0.3, array.dtype)
        elif not name.endswith("W"):
            state[name] = draw(name, *array.shape, dtype=array.dtype)
    network.load_state_dict(state)
    return network


def passes(layers: Callable[[], list[Any]], dtype: str) -> Digests:
    """Forward and backward without a trainer, in training and in evaluation mode."""
    network, found = loaded(layers, dtype), Digests()
    x, _ = sources.inputs(dtype)
    keys = {"samples": codes("samples", 2**31, len(x)), "step": np.asarray([5])}
    for label, options in {
        "training": {"training": True, **keys}, "without dropout": {"training": True, "dropout": False},
        "evaluation": {"training": False},
    }.items():  # fmt: skip
        forward, gradients = network.forward(x, **options), network.gradients()
        found[f"{label}, output"] = digest(forward.output)
        dx = forward.pullback(draw("dy", *forward.output.shape, dtype=dtype), gradients)
        found |= {f"{label}, dx": digest(dx), f"{label}, gradients": digest(gradients.array)}
    return found


def predictions(layers: Callable[[], list[Any]], dtype: str) -> Digests:
    """Of batches large and small, of other dtypes and of more axes."""
    network = loaded(layers, dtype)
    x, _ = sources.inputs(dtype, " predict", 2100)
    other = x.astype("float32" if dtype == "float64" else "float64")
    found = {
        "large": network.predict(x), "small batches": network.predict(x[:300], batch_size=70),
        "again": network.predict(x[:70]), "one": network.predict(x[:1]), "other dtype": network.predict(other[:50]),
        "three axes": network.predict(x[:60].reshape(12, 5, -1)), "strided": network.predict(x[::9, :]),
    }  # fmt: skip
    return of_arrays(found)


def defaults() -> Digests:
    """A training without a single option."""
    network = bn.Sequential(bn.Dense(6, 8), bn.BatchNorm(8), bn.Activation("relu"), bn.Dropout(0.5), bn.Dense(8, 3))
    trainer = bn.Trainer(network, progress="quiet")
    trainer.fit(sources.inputs("float32", rows=150), epochs=1)
    return of_arrays(network.state_dict())


def trained() -> bn.Sequential:
    """A network that has seen a few batches."""
    network = bn.Sequential(*networks.usual()(), backend="numpy")
    bn.Trainer(network, learning_rate=0.02, progress="quiet").fit(sources.inputs("float32"), epochs=2, batch_size=16)
    return network


def evaluated() -> Digests:
    """Figures of a trainer over rows with weights."""
    trainer = bn.Trainer(trained(), progress="quiet")
    kinds = bn.metrics.Accuracy(), bn.metrics.TopK(2)
    x, y, weights = sources.weighted("float32")
    found = {"plain": trainer.evaluate((x, y)), "small": trainer.evaluate((x, y), batch_size=9)}
    found["weighted"] = trainer.evaluate((x, y, weights), metrics=kinds)
    return {name: of_value(value) for name, value in found.items()}


def folded() -> Digests:
    """Batch normalization that has become part of Dense."""
    network = inspect.fold(trained(), limit=float("inf")).network
    return of_arrays(network.state_dict()) | {"predicted": digest(network.predict(sources.inputs("float32")[0]))}


def adapted() -> Digests:
    """Statistics blended with those of other data."""
    network = trained()
    adaptation = inspect.adapt(network, sources.far("float32")[0], prior=30)
    found = of_arrays(network.state_dict())
    adaptation.undo()
    return found | of_arrays(network.state_dict(), "undone ")


def recalibrated() -> Digests:
    """Exact statistics of the rows."""
    network = trained()
    inspect.recalibrate(network, sources.inputs("float32"))
    return of_arrays(network.state_dict())


def gap() -> Digests:
    """Losses and accuracies by several statistics."""
    found = inspect.gap(trained(), sources.far("float32"), training=sources.inputs("float32"), batch_size=16)
    scores = [[score.loss, score.accuracy] for score in found.scores.values()]
    return {"scores": of_value(scores)}


def conventions() -> Digests:
    """Other frameworks' arguments."""
    found: Digests = {}
    for name in ("torch", "keras", "flax", "tf", "chainer"):
        make = bn.BatchNorm.from_convention
        layers = make(name, 6), make(name, 6, momentum=0.3), bn.Dense(6, 3)
        network = bn.Sequential(*layers, backend="numpy")
        bn.Trainer(network, "sgd", progress="quiet").fit(sources.inputs("float32"), epochs=1, batch_size=16)
        found |= of_arrays(network.state_dict(), f"{name} ")
    return found


# -- the host ----------------------------------------------------------------------------------------------------------

INITIALIZERS: dict[str, Any] = {
    "he": "he", "glorot": bn.Glorot(), "normal": bn.Normal(0.3), "zeros": "zeros", "ones": "ones",
    "constant": {"type": "Constant", "value": 0.5},
}  # fmt: skip


def initial(name: str) -> Digests:
    """Weights before any training, for several seeds."""
    found: Digests = {}
    for seed in (0, 7, 2**64 - 1):
        for dtype in ("float32", "float64"):
            weights = INITIALIZERS.get(name, name)
            layers = bn.Dense(5, 9, weights=weights, bias=True), bn.Dense(9, 4, weights=weights)
            network = bn.Sequential(*layers, backend="numpy", dtype=dtype, seed=seed)
            found |= of_arrays(network.state_dict(), f"{seed} {dtype} ")
            network.reset(seed=1)
            found |= of_arrays(network.state_dict(), f"{seed} {dtype} again ")
    return found


def rates(name: str) -> Digests:
    """The learning rates of forty steps of a run of thirty."""
    schedule = SCHEDULES[name]().resolved(30)
    found = {"rates": schedule.for_steps(0, 40), "one": schedule.rate(11), "config": schedule.config()}
    return {key: of_value(value) for key, value in found.items()}


def metrics() -> Digests:
    """Figures of merit, merged from two parts, with weights, with NaN."""
    logits, y = draw("logits", 80, 4), codes("y", 4, 80)
    logits[7, 2] = np.nan
    weights = share("w", 80, dtype="float64")
    m = bn.metrics
    found: Digests = {}
    for label, w in (("plain", None), ("weighted", weights)):
        for metric, a, b in (
            (m.Accuracy, logits, y), (lambda: m.TopK(2), logits, y), (lambda: m.ConfusionMatrix(4), logits, y),
            (m.MeanAbsoluteError, draw("p", 80, 2), draw("t", 80, 2)), (m.R2, draw("p", 80, 2), draw("t", 80, 2)),
            (lambda: m.Accuracy(each_output=True), draw("p", 80, 2), codes("t", 2, 80, 2).astype("float32")),
        ):  # fmt: skip
            first, second = metric(), metric()
            first.update(a[:31], b[:31], None if w is None else w[:31])
            second.update(a[31:], b[31:], None if w is None else w[31:])
            first.merge(second)
            name = f"{label} {type(first).__name__} {len(found)}"
            found[name] = of_value(float(first.value()))
            if isinstance(first, m.ConfusionMatrix):
                found[f"{name} matrix"] = digest(first.matrix)
                found[f"{name} report"] = of_value(asdict(first.report())["classes"])
    return found


def loss_metric() -> Digests:
    """Losses as metrics."""
    found: Digests = {}
    for function, target in (
        (bn.SoftmaxCrossEntropy(0.1), codes("y", 3, 50)), (bn.BinaryCrossEntropy(), share("t", 50, 3)),
        (bn.MeanSquaredError(), share("t", 50, 3)),
    ):  # fmt: skip
        metric = bn.metrics.Loss(function)
        metric.update(draw("p", 50, 3), target)
        found[type(function).__name__] = of_value(metric.value())
    return found


def digits() -> Digests:
    """The data that come along."""
    data = bn.load_digits()
    return of_arrays({"x": data.x, "y": data.y})


def splits() -> Digests:
    """Which rows are set apart, and the order of an epoch."""
    data, found = bn.load_digits(), Digests()
    for seed in (0, 5):
        for task in ("classification", "regression"):
            train, valid = bn.data.split_dataset(data, seed=seed, task=task)
            found |= of_arrays({"train": train, "valid": valid}, f"{seed} {task} ")
        found[f"{seed} order"] = digest(bn.data.order(1000, seed=seed, epoch=3))
    return found


def preprocessing() -> Digests:
    """What raw data are scaled by, the labels, and the rows that come out."""
    found: Digests = {}
    for kind, scaling in (("uint8", "unit"), ("uint8", "centre"), ("int16", "standardize"), ("float64", "standardize")):
        x = (draw("raw", 70, 3, 4, dtype="float64") * 20 + 60).astype(kind)
        data = bn.data.Dataset(x, np.asarray(["no", "yes", "perhaps"])[codes("y", 3, 70)])
        fitted = bn.Preprocessing.fit(data, np.arange(60), scaling=scaling)
        label = f"{kind} {scaling}"
        found |= of_arrays({"mean": fitted.mean, "inv_scale": fitted.inv_scale}, f"{label} ")
        found[f"{label} labels"] = of_value([str(word) for word in fitted.labels(np.arange(3))])
        batch = bn.ArraySource(x, data.y, preprocessing=fitted).take(np.asarray([3, 1, 69]))
        found |= of_arrays(batch._asdict(), f"{label} ")
    targets = bn.data.Dataset(draw("x", 70, 4), draw("t", 70, 2, dtype="float64") * 1000)
    fitted = bn.Preprocessing.fit(targets, task="regression")
    return found | of_arrays({"target_mean": fitted.target_mean, "target_scale": fitted.target_scale})


def runs() -> Iterator[tuple[str, str, Value]]:
    """(name, mode, computation) of all."""
    for name, value in of_kernels().items():
        yield from ((name, mode, lambda value=value, mode=mode: within(mode, value)) for mode in ("fused", "reference"))
    for name, value in of_host().items():
        yield name, "host", value
    for name, value in of_numpy().items():
        yield name, "reference", value


def within(mode: str, value: Value) -> Digests:
    """A computation by native kernels or by references."""
    if mode == "fused":
        bn.threads.set(1)
    with bn.ops.using(mode), np.errstate(all="ignore"):
        return value()
