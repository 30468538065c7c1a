"""The table of optimizers that tests walk: each rule once more by its formula, its variants, its twin in PyTorch."""

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from bnengine.ops.update import RULES, Rule
from bnengine.optim.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Lion, Optimizer, RMSprop


def optional(rule: Rule) -> int:
    """How many of the last slots a variant may lack."""
    return sum(slot.on is not None for slot in rule.slots.values())


def sgd(g, velocity, *, momentum=0.0, nesterov=False):
    v = g if velocity is None else momentum * velocity + g
    return g + momentum * v if nesterov else v, v


def rmsprop(g, square, mean, velocity, *, rho=0.99, eps=1e-8, eps_inside=False, momentum=0.0):
    square = rho * square + (1 - np.longdouble(rho)) * g**2
    mu = 0 if mean is None else rho * mean + (1 - np.longdouble(rho)) * g
    divisor = np.sqrt(square - mu**2 + eps) if eps_inside else np.sqrt(square - mu**2) + eps
    v = g / divisor + (0 if velocity is None else momentum * velocity)
    return v, square, mu, v


def adam(g, m, v, largest, c1, c2, *, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - np.longdouble(beta1)) * g
    v = beta2 * v + (1 - np.longdouble(beta2)) * g**2
    most = v if largest is None else np.maximum(v, largest)
    return (m / c1) / (np.sqrt(most / c2) + eps), m, v, most


def lion(g, m, *, beta1=0.9, beta2=0.99):
    c = beta1 * m + (1 - np.longdouble(beta1)) * g
    return np.where(c > 0, 1, np.where(c < 0, -1, 0 * c)), beta2 * m + (1 - np.longdouble(beta2)) * g


class Row(NamedTuple):
    """An optimizer.

    `move(g, *slots, *scalars, **settings)`: the move in units of the learning rate and the new slots, of numbers or
    arrays. `scalars(optimizer, t)`: of step t. `variants`: by label, with a learning rate that trains a small network.
    `torch(optim, optimizer)`: PyTorch's class and its options, None where it has none. `state`: its names of slots.
    `jumps`: whether moves jump where a sign changes, so that a small difference may become a large one at once.
    """

    move: Callable[..., tuple[Any, ...]]
    variants: dict[str, tuple[Optimizer, float]]
    scalars: Callable[[Any, int], tuple[float, ...]] = lambda _optimizer, _t: ()
    torch: Callable[[Any, Any], tuple[Any, dict[str, Any]] | None] = lambda _optim, _optimizer: None
    state: dict[str, str] = {}  # noqa: RUF012 -- a default of a tuple's field, never written to
    jumps: bool = False


def _torch_rmsprop(optim: Any, o: RMSprop) -> Any:
    options = {"alpha": o.rho, "eps": o.eps, "centered": o.centered, "momentum": o.momentum}
    return None if o.eps_inside else (optim.RMSprop, options)


def _torch_adam(optim: Any, o: Adam) -> Any:
    options = {"betas": (o.beta1, o.beta2), "eps": o.eps, "amsgrad": o.amsgrad}
    return (optim.AdamW if o.decoupled else optim.Adam, options) if o.bias_correction else None


def _corrections(o: Adam, t: int) -> tuple[float, ...]:
    return (1 - o.beta1**t, 1 - o.beta2**t) if o.bias_correction else (1.0, 1.0)


_ADAM_STATE = {"m": "exp_avg", "v": "exp_avg_sq", "largest": "max_exp_avg_sq"}
TABLE: dict[str, Row] = {
    "sgd": Row(
        sgd,
        {
            "SGD": (SGD(), 0.1),
            "SGD, weight decay": (SGD(weight_decay=0.05), 0.1),
            "SGD, momentum": (SGD(momentum=0.9), 0.03),
            "SGD, momentum, weight decay": (SGD(momentum=0.5, weight_decay=0.1), 0.03),
            "SGD, Nesterov": (SGD(momentum=0.9, nesterov=True), 0.03),
            "SGD, Nesterov, weight decay": (SGD(momentum=0.8, nesterov=True, weight_decay=0.05), 0.03),
        },
        torch=lambda optim, o: (optim.SGD, {"momentum": o.momentum, "nesterov": o.nesterov}),
        state={"velocity": "momentum_buffer"},
    ),
    "rmsprop": Row(
        rmsprop,
        {
            "RMSprop": (RMSprop(), 3e-3),
            "RMSprop, other share and eps": (RMSprop(rho=0.9, eps=1e-3), 3e-3),
            "RMSprop, centered": (RMSprop(centered=True), 3e-3),
            "RMSprop, momentum": (RMSprop(momentum=0.8), 1e-3),
            "RMSprop, weight decay": (RMSprop(weight_decay=0.05), 3e-3),
            "RMSprop, all": (RMSprop(rho=0.95, centered=True, momentum=0.8, weight_decay=0.05), 1e-3),
            "RMSprop, eps inside": (RMSprop(eps=1e-6, eps_placement="inside"), 3e-3),
            "RMSprop, eps inside, all": (
                RMSprop(rho=0.95, eps=1e-4, eps_placement="inside", centered=True, momentum=0.8, weight_decay=0.05),
                1e-3,
            ),
        },
        torch=_torch_rmsprop,
        state={"square": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
    ),
    "adam": Row(
        adam,
        {
            "Adam": (Adam(), 1e-2),
            "Adam, other shares and eps": (Adam(beta1=0.8, beta2=0.95, eps=1e-3), 1e-2),
            "Adam, L2": (Adam(weight_decay=0.05), 1e-2),
            "Adam, no bias correction": (Adam(bias_correction=False), 3e-3),
            "AMSGrad": (Adam(beta2=0.9, amsgrad=True), 1e-2),
            "AMSGrad, L2": (Adam(beta2=0.9, amsgrad=True, weight_decay=0.05), 1e-2),
            "AMSGrad, L2, no bias correction": (
                Adam(beta2=0.9, amsgrad=True, bias_correction=False, weight_decay=0.05),
                3e-3,
            ),
        },
        _corrections,
        torch=_torch_adam,
        state=_ADAM_STATE,
    ),
    "adamw": Row(
        adam,
        {
            "AdamW": (AdamW(), 1e-2),
            "AdamW, strong decay": (AdamW(weight_decay=0.5), 1e-2),
            "AdamW, AMSGrad": (AdamW(beta2=0.9, amsgrad=True, weight_decay=0.1), 1e-2),
        },
        _corrections,
        torch=_torch_adam,
        state=_ADAM_STATE,
    ),
    "lion": Row(
        lion,
        {
            "Lion": (Lion(), 3e-3),
            "Lion, other shares, decay": (Lion(beta1=0.8, beta2=0.95, weight_decay=0.1), 3e-3),
        },
        jumps=True,
    ),
}
VARIANTS = {label: variant for row in TABLE.values() for label, variant in row.variants.items()}
FORMULAS = {OPTIMIZERS[name].op.name: row.move for name, row in TABLE.items()}  # by the rule's name


def moved(optimizer: Optimizer, p: Any, g: Any, rate: float, t: int, state: dict[str, Any], *, decays: bool) -> Any:
    """Compute the parameters and `state`, which holds slots by name, after step t by the formulas."""
    row, decay = TABLE[optimizer.name], getattr(optimizer, "weight_decay", 0.0) if decays else 0.0
    names = [one.name for one in signature(row.move).parameters.values() if one.kind is one.KEYWORD_ONLY]
    there = optimizer.slots()
    slots = [state.get(name, np.zeros_like(p)) if there[name] else None for name in there]
    g = g if optimizer.decoupled else g + decay * p
    settings = {name: getattr(optimizer, name) for name in names}
    move, *new = row.move(g, *slots, *row.scalars(optimizer, t), **settings)
    state.update({name: np.asarray(a, np.float64) for name, a in zip(there, new, strict=True) if there[name]})
    return np.asarray(p - rate * (move + decay * p if optimizer.decoupled else move), np.float64)


def full(cls: type[Optimizer]) -> Optimizer:
    """The variant with every slot, every flag set, and weight decay."""
    flags = {one.name: True for one in fields(cls) if one.type is bool or one.type == "bool"}
    shares = {slot.on: 0.9 for slot in RULES[cls.op.name].slots.values() if slot.on and slot.on not in flags}
    decay = {"weight_decay": 0.01} if any(one.name == "weight_decay" for one in fields(cls)) else {}
    return cls(**flags, **shares, **decay)


FULL = [full(cls) for cls in OPTIMIZERS.values()]
EVERY = [cls(**options) for cls in OPTIMIZERS.values() for options in cls.variants]


def settings_of(rule: Rule) -> dict[str, Any]:
    """Settings of a rule with every number that is 0 by default set, so that all slots count."""
    return {name: 0.9 for name, default in rule.settings.items() if type(default) is float and default == 0}
