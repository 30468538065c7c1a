"""Small trainings that reach every rule, and all that each leaves behind."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bnengine as bn
from bnengine.data import Batch
from bnengine.layers import Layer

from . import allowed, compat
from .digests import Digests, digest, of_arrays, of_value, tensors
from .draws import Array, codes, draw, probabilities, share

LAUNCHES = "layers", "accumulate"
NATIVE = "plan", "launches", "ops"  # the ways in which native kernels run a step
ROWS, INPUTS, CLASSES = 61, 6, 3
ACTIVATIONS = "identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu"


class Training(NamedTuple):
    """What is trained, how, and on what; `data` and `prepare` get the dtype and the trainer."""

    layers: Callable[[], list[Layer]]
    optimizer: str | dict[str, Any] = "adam"
    network: dict[str, Any] = {}  # noqa: RUF012 -- defaults of a tuple's fields, never written to
    options: dict[str, Any] = {}  # noqa: RUF012 -- of the Trainer; of Step and Trainer what is in OF_STEP
    data: Callable[[str], Any] = lambda dtype: classes(dtype)
    prepare: Callable[[bn.Trainer], None] = lambda trainer: None  # noqa: ARG005
    rate: Callable[[], Any] = lambda: 0.02
    batch: int = 16
    epochs: int = 2

    @property
    def dtype(self) -> str:
        """Of the network."""
        return str(self.network.get("dtype", "float32"))

    @property
    def has_kernels(self) -> bool:
        """Whether NumPy arrays of its dtypes have native kernels, so that the same bits come out everywhere."""
        return "precision" not in self.network and "backend" not in self.network


OF_STEP = "clip_norm", "statistics", "average", "loss_scale"


def inputs(dtype: str, seed: str = "", rows: int = ROWS) -> tuple[Array, Array]:
    """Classes around centers of their own."""
    y = codes(f"y{seed}", CLASSES, rows)
    return (draw(f"x{seed}", rows, INPUTS) + 2 * draw("centers", CLASSES, INPUTS)[y]).astype(dtype), y


def classes(dtype: str) -> tuple[Array, ...]:
    """Integer targets."""
    return inputs(dtype)


def weighted(dtype: str) -> tuple[Array, ...]:
    """Integer targets and weights, some of them 0."""
    weights = share("w", ROWS, dtype=dtype)
    return (*inputs(dtype), np.where(weights < 0.2, 0, weights).astype(dtype))


def likely(dtype: str) -> tuple[Array, ...]:
    """Probabilities as targets."""
    return inputs(dtype)[0], probabilities("t", ROWS, CLASSES, dtype=dtype)


def numbers(dtype: str) -> tuple[Array, ...]:
    """Real targets, which also are between 0 and 1."""
    return inputs(dtype)[0], share("t", ROWS, CLASSES, dtype=dtype)


def numbers_weighted(dtype: str) -> tuple[Array, ...]:
    """Real targets with weights."""
    return (*numbers(dtype), share("w", ROWS, dtype=dtype))


class Rows:
    """A source that checks nothing: NaN and infinity reach the step."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y, self.rows = x, y, len(x)

    def take(self, positions: Array) -> Batch:
        """The rows at these positions."""
        return Batch(self.x[positions], self.y[positions], None, positions)


def spoiled(dtype: str) -> Rows:
    """A row with NaN and one with infinity: two steps of an epoch are skipped."""
    x, y = inputs(dtype)
    x[3, 1], x[40, 2] = np.nan, np.inf
    return Rows(x, y)


def images(dtype: str) -> Rows:
    """Pictures of 3 x 2 with a class for every pixel."""
    return Rows(draw("image", 40, 3, 2, INPUTS, dtype=dtype), codes("pixel", CLASSES, 40, 3, 2))


def few(dtype: str) -> tuple[Array, ...]:
    """Thirteen rows."""
    return inputs(dtype, rows=13)


def far(dtype: str) -> tuple[Array, ...]:
    """Inputs whose mean is 10,000 standard deviations from 0."""
    x, y = inputs(dtype)
    return (x + np.asarray(10_000, dtype)).astype(dtype), y


def batches(dtype: str) -> Callable[[], Iterator[tuple[Array, Array]]]:
    """Batches from a function, in their own order."""
    x, y = inputs(dtype)
    return lambda: ((x[a : a + 16], y[a : a + 16]) for a in range(0, ROWS, 16))


def raw(kind: str, scaling: str, task: str = "classification") -> Callable[[str], bn.ArraySource]:
    """Raw numbers of a dtype behind a preprocessing, in the order of some indices."""

    def source(dtype: str) -> bn.ArraySource:
        x = draw("raw", ROWS, INPUTS, dtype="float64") * 20 + 60
        x = x.astype(kind)
        y = codes("y", CLASSES, ROWS) if task == "classification" else draw("t", ROWS, CLASSES, dtype="float64")
        indices = np.arange(ROWS)[::-1][:50]
        data = bn.data.Dataset(x, y)
        preprocessing = bn.Preprocessing.fit(data, indices, scaling=scaling, task=task)
        return bn.ArraySource(x, y, preprocessing=preprocessing, indices=indices, dtype=dtype)

    return source


def modes(name: str, case: Training) -> tuple[str, ...]:
    """The ways in which a training runs; a few leave some out, for the sake of time."""
    if not case.has_kernels:
        return ("reference",)
    skipped = set() if name.startswith(LAUNCHES) else {"launches"}
    skipped |= {"ops"} if case.dtype == "float64" else set()
    return tuple(mode for mode in (*NATIVE, "reference") if mode not in skipped)


def outcome(case: Training, mode: str, *callbacks: bn.Callback, resume: Path | None = None) -> Digests:
    """Digests of the checkpoint, of its metadata and of predictions after a training in one of the modes.

    `callbacks` are more of them; `resume` is a checkpoint to go on from.
    """
    how = "reference" if mode == "reference" else "fused"
    if case.has_kernels:
        bn.threads.set(2 if mode == "launches" else 1)  # no bit depends on it, and one is quick on a busy machine
    with bn.ops.using(how), np.errstate(all="ignore"):
        trainer = made(case, mode)
        trainer.callbacks.extend(callbacks)
        if resume is not None:
            trainer.resume(resume)
        trainer.fit(case.data(case.dtype), epochs=case.epochs, batch_size=case.batch, validation=valid(case))
        trainer.callbacks[:] = [one for one in trainer.callbacks if one not in callbacks]
        return left(trainer, case)


def made(case: Training, mode: str) -> bn.Trainer:
    """The trainer before its first step."""
    network = bn.Sequential(*case.layers(), **{"backend": "numpy", "seed": 3, **case.network})
    options = {name: value() if callable(value) else value for name, value in case.options.items()}
    graph = False if mode == "launches" else "auto"
    trainer = bn.Trainer(
        network, case.optimizer, learning_rate=case.rate(), progress="quiet", graph=graph, **options
    )  # fmt: skip
    if mode == "ops":
        compat.one_by_one(trainer, **{name: options[name] for name in OF_STEP if name in options})
    case.prepare(trainer)
    return trainer


def valid(case: Training) -> Any:
    """Validation data of the same kind."""
    return inputs(case.dtype, " valid", 23) if case.data is spoiled else case.data(case.dtype)


def left(trainer: bn.Trainer, case: Training) -> Digests:
    """Everything that can be seen of a training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        trainer.save(path)
        arrays, metadata = tensors(path)
        loaded = bn.load(path, backend="numpy")
    found = of_arrays({allowed.old_name(name): array for name, array in arrays.items()})
    found |= {f"metadata.{name}": of_value(value) for name, value in flat(allowed.old_words(metadata)).items()}
    x = features(case)
    found["predicted"] = digest(trainer.network.predict(x))
    found["predicted after loading"] = digest(loaded.predict(x))
    return found


def features(case: Training) -> Array:
    """Ready features for a prediction."""
    data = case.data(case.dtype)
    return data[0] if isinstance(data, tuple) else inputs(case.dtype)[0]


def flat(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a checkpoint, one value for each name."""
    found = dict[str, Any]()
    for name, value in metadata.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found


# -- the table ---------------------------------------------------------------------------------------------------------


def usual(activation: str = "relu", *, drop: float = 0.0, **norm: Any) -> Callable[[], list[Layer]]:
    """Widths that fill no vector, an activation behind BatchNorm and one behind a bias."""

    def layers() -> list[Layer]:
        dropped = [bn.Dropout(drop)] if drop else []
        return [
            bn.Dense(INPUTS, 19), bn.BatchNorm(19, **norm), bn.Activation(activation), *dropped,
            bn.Dense(19, 8), bn.Activation(activation), bn.Dense(8, CLASSES),
        ]  # fmt: skip

    return layers


def apart(activation: str, slope: float = 0.01) -> Callable[[], list[Layer]]:
    """Activations that no other op applies: first, behind dropout and behind a sum."""

    def layers() -> list[Layer]:
        act = bn.Activation(activation, slope=slope)
        body = bn.Dense(9, 9), bn.Activation(activation, slope=slope)
        return [act, bn.Dense(INPUTS, 9), bn.Dropout(0.2), act, bn.Residual(*body), act, bn.Dense(9, CLASSES)]

    return layers


def residual() -> list[Layer]:
    """Sums in BatchNorm, apart, of residuals, and an activation behind a sum."""
    inner = bn.Residual(bn.Dense(11, 11), bn.BatchNorm(11, decay=None))
    outer = bn.Residual(inner, bn.Dropout(0.25), bn.Dense(11, 11, weights="glorot"))
    last = bn.Residual(bn.Dense(11, 11), bn.Activation("tanh"), bn.Dense(11, 11), bn.BatchNorm(11))
    return [bn.Dense(INPUTS, 11), bn.BatchNorm(11), bn.Activation("gelu"), outer, last, bn.Activation("relu"),
            bn.Dense(11, CLASSES)]  # fmt: skip


def shared() -> list[Layer]:
    """A Dense and a BatchNorm that stand twice."""
    dense, norm = bn.Dense(10, 10, bias=True), bn.BatchNorm(10)
    return [bn.Dense(INPUTS, 10), norm, bn.Activation("tanh"), dense, norm, bn.Activation("sigmoid"), dense,
            bn.Dense(10, CLASSES)]  # fmt: skip


def wide() -> list[Layer]:
    """Sizes that are cut into blocks and strips."""
    return [bn.Dense(INPUTS, 150), bn.BatchNorm(150), bn.Activation("relu"), bn.Dense(150, 133), bn.BatchNorm(133),
            bn.Activation("gelu"), bn.Dropout(0.1), bn.Dense(133, CLASSES)]  # fmt: skip


def many(dtype: str) -> tuple[Array, Array]:
    """Rows enough for several blocks of a sum."""
    return inputs(dtype, " many", 1500)


def deep() -> list[Layer]:
    """Many small layers."""
    hidden = [[bn.Dense(13, 13), bn.BatchNorm(13), bn.Activation("leaky_relu")] for _ in range(5)]
    return [bn.Dense(INPUTS, 13), *itertools.chain(*hidden), bn.Dense(13, CLASSES)]


def bare() -> list[Layer]:
    """A linear classifier."""
    return [bn.Dense(INPUTS, CLASSES)]


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd"},
    "sgd, decay": {"name": "sgd", "weight_decay": 0.05},
    "momentum": {"name": "sgd", "momentum": 0.9},
    "nesterov, decay": {"name": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    "rmsprop": {"name": "rmsprop"},
    "rmsprop, centered": {"name": "rmsprop", "centred": True},
    "rmsprop, momentum, decay": {"name": "rmsprop", "rho": 0.9, "momentum": 0.7, "weight_decay": 0.03},
    "rmsprop, eps inside": {"name": "rmsprop", "eps": 1e-3, "eps_placement": "inside"},
    "rmsprop, all": {"name": "rmsprop", "eps": 1e-3, "eps_placement": "inside", "centred": True, "momentum": 0.5},
    "adam": {"name": "adam"},
    "adam, no bias correction": {"name": "adam", "bias_correction": False, "beta1": 0.8, "eps": 1e-4},
    "adam, decay": {"name": "adam", "weight_decay": 0.02},
    "amsgrad": {"name": "adam", "amsgrad": True, "beta2": 0.9},
    "adamw": {"name": "adamw"},
    "adamw, amsgrad": {"name": "adamw", "amsgrad": True, "weight_decay": 0.1},
}
SCHEDULES: dict[str, Callable[[], Any]] = {
    "constant": lambda: bn.schedules.Constant(0.02),
    "step": lambda: bn.schedules.Step(0.05, 3, 0.5),
    "cosine": lambda: bn.schedules.Cosine(0.05, floor=0.001),
    "one-cycle": lambda: bn.schedules.OneCycle(0.05),
    "one-cycle, linear": lambda: bn.schedules.OneCycle(0.05, anneal="linear", rise=0.5),
    "plateau": lambda: bn.schedules.Plateau(0.05, factor=0.5, patience=0, threshold=0.9),
    "warm-up": lambda: bn.schedules.WarmUp(bn.schedules.Cosine(0.05), 3, 0.001),
    "warm-up, plateau": lambda: bn.schedules.WarmUp(bn.schedules.Plateau(0.05, patience=0, threshold=0.9), 2),
}
NORMS: dict[str, dict[str, Any]] = {
    "exact": {"decay": None},
    "biased": {"variance": "biased", "decay": 0.5},
    "eps": {"eps": 0.1},
    "no gamma": {"gamma": False},
    "no beta": {"beta": False},
    "bare": {"gamma": False, "beta": False},
}
LOSSES: dict[str, tuple[dict[str, Any], Callable[[str], Any]]] = {
    "classes": ({"name": "softmax_cross_entropy"}, classes),
    "smoothed, class weights": (
        {"name": "softmax_cross_entropy", "label_smoothing": 0.1, "class_weights": [0.5, 2.0, 1.0]}, weighted,
    ),
    "probabilities": ({"name": "softmax_cross_entropy"}, likely),
    "weighted": ({"name": "softmax_cross_entropy"}, weighted),
    "binary": ({"name": "binary_cross_entropy"}, numbers),
    "binary, weighted": ({"name": "binary_cross_entropy"}, numbers_weighted),
    "squared": ({"name": "mean_squared_error"}, numbers),
    "squared, weighted": ({"name": "mean_squared_error"}, numbers_weighted),
}  # fmt: skip


def freezing(*kinds: str, names: tuple[str, ...] = (), warm: bool = False) -> Callable[[bn.Trainer], None]:
    """Freeze something, after an epoch if the statistics must be collected first."""

    def prepare(trainer: bn.Trainer) -> None:
        if warm:
            trainer.fit(classes(trainer.network.dtype), epochs=1, batch_size=16)
        for kind in kinds:
            trainer.network.freeze(kind, *names)  # type: ignore[arg-type]

    return prepare


def thawing(trainer: bn.Trainer) -> None:
    """An epoch with a frozen layer, which then takes part again."""
    trainer.network.freeze("parameters", "0")
    trainer.fit(classes(trainer.network.dtype), epochs=1, batch_size=16)
    trainer.network.thaw("parameters")


FROZEN: dict[str, Callable[[bn.Trainer], None]] = {
    "parameters": freezing("parameters", names=("0.W", "5")),
    "all parameters": freezing("parameters"),
    "affine": freezing("affine"),
    "statistics": freezing("statistics", warm=True),
    "normalization": freezing("normalization", warm=True),
    "thawed": thawing,
}


def table() -> dict[str, Training]:
    """Every training, by its name."""
    found: dict[str, Training] = {}
    clipped = {"clip_norm": 0.5}
    for name, optimizer in OPTIMIZERS.items():
        found[f"optimizer: {name}"] = Training(usual(), optimizer)
        found[f"optimizer: {name}, float64, clipped"] = Training(usual(), optimizer, {"dtype": "float64"}, clipped)
        found[f"optimizer: {name}, frozen"] = Training(
                usual(), optimizer, prepare=freezing("affine", "parameters", names=("1",))
            )  # fmt: skip
        found[f"optimizer: {name}, float16"] = Training(usual(), optimizer, {"precision": "float16"}, clipped)
    for name in ACTIVATIONS:
        for dtype in ("float32", "float64"):
            found[f"activation: {name}, {dtype}"] = Training(usual(name), network={"dtype": dtype})
            found[f"activation: {name} apart, {dtype}"] = Training(apart(name, 0.2), network={"dtype": dtype})
        for kind in ("float16", "bfloat16"):
            found[f"activation: {name}, {kind}"] = Training(usual(name), network={"precision": kind})
            found[f"activation: {name} apart, {kind}"] = Training(apart(name, 0.2), network={"precision": kind})
    return found | others()


def others() -> dict[str, Training]:
    """All but optimizers and activations."""
    found: dict[str, Training] = {}
    for dtype in ("float32", "float64"):
        own = {"dtype": dtype}
        for name, norm in NORMS.items():
            found[f"norm: {name}, {dtype}"] = Training(usual("tanh", **norm), network=own)
        for name, (loss, data) in LOSSES.items():
            found[f"loss: {name}, {dtype}"] = Training(usual(), network=own, options={"loss": loss}, data=data)
        for kind in ("merged", "per_micro_batch"):
            options = {"accumulate": 3, "statistics": kind, "clip_norm": 1.0}
            found[f"accumulate: {kind}, {dtype}"] = Training(
                usual(drop=0.2), "adam", own, options, weighted, batch=7)  # fmt: skip
            found[f"accumulate: {kind}, shared, {dtype}"] = Training(shared, "sgd", own, options, batch=9)
        for kind in ("averaged", "recomputed"):
            options = {"average": bn.Average(0.8, statistics=kind)}
            found[f"average: {kind}, {dtype}"] = Training(usual("gelu", drop=0.3), "adam", own, options)
        for name, layers in {
            "residual": residual, "shared": shared, "deep": deep, "bare": bare, "dropout": usual(drop=0.5)
        }.items():  # fmt: skip
            found[f"layers: {name}, {dtype}"] = Training(layers, "adamw", own)
        found[f"layers: wide, {dtype}"] = Training(wide, "adam", own, data=many, batch=700, epochs=1)
        found[f"data: images, {dtype}"] = Training(usual("leaky_relu"), network=own, data=images, batch=8)
        found[f"data: spoiled, {dtype}"] = Training(usual(drop=0.2), network=own, data=spoiled)
        found[f"data: far, {dtype}"] = Training(
            lambda: [bn.BatchNorm(INPUTS), *usual()()], network=own, data=far)  # fmt: skip
        found[f"data: batches, {dtype}"] = Training(usual(drop=0.2), network=own, data=batches)
        found[f"data: one by one, {dtype}"] = Training(
            usual(one_value="running"), network=own, data=few, prepare=freezing(warm=True), batch=1)  # fmt: skip
        for kind, scaling in (("uint8", "unit"), ("int16", "standardize"), ("float32", "none"), ("float64", "centre")):
            found[f"data: {kind}, {scaling}, {dtype}"] = Training(
                usual(), network=own, data=raw(kind, scaling), options={"accumulate": 2}, batch=8)  # fmt: skip
        found[f"data: regression, {dtype}"] = Training(
            usual(), network=own, data=raw("float64", "standardize", "regression"),
            options={"loss": {"name": "mean_squared_error"}},
        )  # fmt: skip
        found[f"data: fed, {dtype}"] = Training(usual(drop=0.2), network=own, options={"resident": False})
        for name, prepare in FROZEN.items():
            found[f"frozen: {name}, {dtype}"] = Training(usual("sigmoid"), "adamw", own, prepare=prepare, epochs=3)
    for name, rate in SCHEDULES.items():
        found[f"schedule: {name}"] = Training(usual(), "sgd", rate=rate, epochs=3)
    stopping = {"callbacks": lambda: [bn.EarlyStopping(1, margin=0.5)], "average": bn.Average(0.5)}
    found["early stopping"] = Training(usual(drop=0.2), options=stopping, epochs=6)
    narrow = {"precision": "float16"}
    for name, scale in {
        "fixed": 1024.0, "falls": bn.LossScale(initial=2.0**19), "grows": bn.LossScale(initial=4.0, every=3),
        "none": None,
    }.items():  # fmt: skip
        found[f"loss scale: {name}"] = Training(usual(), network=narrow, options={"loss_scale": scale})
    found["loss scale: float32"] = Training(usual(), options={"loss_scale": bn.LossScale(initial=512.0, every=2)})
    for kind in ("float16", "bfloat16"):
        own = {"precision": kind}
        found[f"layers: residual, {kind}"] = Training(residual, network=own)
        found[f"layers: shared, {kind}"] = Training(shared, network=own, options={"accumulate": 2}, batch=8)
        found[f"average, dropout, {kind}"] = Training(
            usual(drop=0.3), "adam", own, {"average": bn.Average(0.8, statistics="recomputed")})  # fmt: skip
        for name, (loss, data) in LOSSES.items():
            found[f"loss: {name}, {kind}"] = Training(usual(), network=own, options={"loss": loss}, data=data)
    return found
