"""The trainings: each reaches a rule that no other does."""

from collections.abc import Callable
from functools import partial
from typing import Any

import bnengine as bn

from . import sources
from .networks import ACTIVATIONS, apart, bare, deep, odd, residual, shared, single, usual, wide
from .sources import classes, likely, numbers, numbers_weighted, raw, weighted
from .trainings import Training

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


RAW = ("uint8", "unit"), ("int16", "standardize"), ("float32", "none"), ("float64", "centre"), ("int64", "standardize")


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


class Change(bn.Callback):
    """Call something after a step."""

    def __init__(self, step: int, change: Callable[[bn.Trainer], None]) -> None:
        self.left, self.change = step, change

    def step_ends(self, trainer: bn.Trainer) -> None:
        self.left -= 1
        if self.left == 0:
            self.change(trainer)


def changed(change: Callable[[bn.Trainer], None]) -> list[bn.Callback]:
    """A change after the third step of a training."""
    return [Change(3, change)]


def attribute(name: str, value: Any) -> Callable[[bn.Trainer], None]:
    """Set an attribute of every layer that has it."""

    def change(trainer: bn.Trainer) -> None:
        for layer in trainer.network.layers:
            if hasattr(layer, name):
                setattr(layer, name, value)

    return change


CHANGES: dict[str, Callable[[bn.Trainer], None]] = {
    "eps": attribute("eps", 0.5),
    "rate of dropout": attribute("rate", 0.6),
    "slope": attribute("slope", 0.4),
    "frozen": lambda trainer: trainer.network.freeze("parameters", "0"),
    "normalization": lambda trainer: trainer.network.freeze("normalization"),
    "statistics": lambda trainer: trainer.network.freeze("statistics"),
}
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
        found[f"layers: wide, {dtype}"] = Training(wide, "adam", own, data=sources.many, batch=700, epochs=1)
        found[f"data: images, {dtype}"] = Training(usual("leaky_relu"), network=own, data=sources.images, batch=8)
        found[f"data: spoiled, {dtype}"] = Training(usual(drop=0.2), network=own, data=sources.spoiled)
        found[f"data: far, {dtype}"] = Training(
            lambda: [bn.BatchNorm(sources.INPUTS), *usual()()], network=own, data=sources.far)  # fmt: skip
        found[f"data: batches, {dtype}"] = Training(usual(drop=0.2), network=own, data=sources.batches)
        found[f"data: one by one, {dtype}"] = Training(
            usual(one_value="running"), "adam", own, {}, sources.few, prepare=freezing(warm=True), batch=1
        )  # fmt: skip
        for kind, scaling in RAW:
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
    return found | rare()


def rare() -> dict[str, Training]:
    """What few trainings meet."""
    found: dict[str, Training] = {}
    for name, change in CHANGES.items():
        found[f"changed: {name}"] = Training(
            usual("leaky_relu", drop=0.2), options={"callbacks": partial(changed, change)})  # fmt: skip
    for name in ("nesterov, decay", "rmsprop, all", "amsgrad", "adamw, amsgrad"):
        found[f"layers: wide, {name}"] = Training(wide, OPTIMIZERS[name], options={"clip_norm": 0.5}, batch=40)
    for dtype in ("float32", "float64"):
        own = {"dtype": dtype}
        found[f"layers: odd, {dtype}"] = Training(odd, "adam", own)
        found[f"data: other dtypes, {dtype}"] = Training(usual(), "adam", own, data=sources.other_dtypes)
        found[f"data: mapped, {dtype}"] = Training(usual(), "adam", own, data=sources.mapped)
        for loss in ("binary_cross_entropy", "mean_squared_error"):
            found[f"loss: {loss}, one output, {dtype}"] = Training(
                single, "adam", own, {"loss": {"name": loss}}, sources.one_output)  # fmt: skip
        found[f"data: spoiled, averaged, accumulated, {dtype}"] = Training(
            usual(), "adam", own, {"average": bn.Average(0.7), "accumulate": 2, "statistics": "per_micro_batch"},
            sources.spoiled, batch=8,
        )  # fmt: skip
    found["data: ragged"] = Training(usual(drop=0.1), data=sources.ragged)
    found["data: ragged, accumulated"] = Training(usual(), options={"accumulate": 3}, data=sources.ragged)
    found["data: long"] = Training(bare, data=sources.long, epochs=1)
    found["frozen: accumulated, averaged"] = Training(
        usual(), options={"accumulate": 2, "average": bn.Average(0.6)}, prepare=freezing("parameters", names=("1",)),
        batch=8,
    )  # fmt: skip
    strict = {"backend": "array_api_strict"}
    found["strict: dropout"] = Training(usual("gelu", drop=0.2), "adamw", strict, {"clip_norm": 0.5})
    found["strict: residual"] = Training(residual, "rmsprop", strict, {"average": bn.Average(0.6)})
    found["strict: accumulated"] = Training(shared, "sgd", strict, {"accumulate": 2}, weighted, batch=8)
    watched = {"precision": "bfloat16"}  # no native kernels, as these records come from NumPy
    found["activations recorded"] = Training(usual(), network=watched, options={"watch": "activations"})
    return found
