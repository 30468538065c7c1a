"""Optimizers: hyperparameters, the slots of state they need, the scalars that change with the step, the op they call.

An optimizer is a frozen dataclass over a rule of `ops.update`: its fields are the options a user gives, and the rule
says which of them are settings of the op and which switch a slot on. A learning rate is not among them: it comes from a
schedule. Weight decay applies to the weights; gamma, beta and biases stay out of it (they come after `decay_end` in
the flat buffer).
"""

from dataclasses import InitVar, asdict, dataclass, field, fields
from typing import Any, ClassVar

from .. import ops
from ..errors import InputError
from ..ops import Op
from ..ops.update import RULES, Rule
from ..registry import Registry
from ..renamed import new_word
from ..validation import number

__all__ = ["SGD", "Adam", "AdamW", "Lion", "RMSprop"]


def _share(default: float) -> Any:
    """An option in [0, 1): the share of an old value that is kept."""
    return _number(default, least=0, below=1, cure="It is the share of the old value kept.")


def _positive(default: float) -> Any:
    return _number(default, above=0)


def _from_0(default: float) -> Any:
    return _number(default, least=0)


def _number(default: float, **limits: Any) -> Any:
    return field(default=default, metadata={"limits": limits})


@dataclass(frozen=True)
class Optimizer:
    """What a training step needs to know of an optimizer.

    `op`: the update of a rule. `decoupled`: whether weight decay shrinks parameters by lr weight_decay p instead of
    entering the gradient. `learning_rate`: where `bnengine train` begins. `variants`: options that between them meet
    every branch, for the certificate and tests.
    """

    name: ClassVar[str] = ""
    op: ClassVar[Op[Any]]
    decoupled: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 0.005
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def __post_init__(self) -> None:
        for one in fields(self):
            if (limits := one.metadata.get("limits")) is not None:
                value = number(type(self).__name__, one.name, getattr(self, one.name), **limits)
                object.__setattr__(self, one.name, value)

    @property
    def rule(self) -> Rule:
        """The row of the op."""
        return RULES[self.op.name]

    @property
    def scale_free(self) -> bool:
        """Whether gradients of any size make steps of one size, as they do where a rule divides by their squares."""
        return any(slot.square for slot in self.rule.slots.values())

    def slots(self) -> dict[str, bool]:
        """The op's state arrays in the order of its arguments, and whether this variant has each."""
        return {name: slot.on is None or bool(getattr(self, slot.on)) for name, slot in self.rule.slots.items()}

    def row(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """The scalars of successful step t = 1, 2, ..., in float64: a row of the op's table."""
        return (learning_rate, *self.scalars(t))

    def scalars(self, t: int) -> tuple[float, ...]:
        """What follows the learning rate in the row of successful step t."""
        return ()

    def options(self) -> dict[str, Any]:
        """The op's constant options."""
        kept = {name: getattr(self, name) for name in self.rule.settings}
        return kept | {"weight_decay": getattr(self, "weight_decay", 0.0), "decoupled": self.decoupled}

    def config(self) -> dict[str, Any]:
        """JSON values that `get_optimizer` makes the same optimizer of."""
        return {"name": self.name, **asdict(self)}


OPTIMIZERS = Registry[Optimizer]("optimizer")


@OPTIMIZERS.register
@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum v + g;  p <- p - lr v; with `nesterov` p <- p - lr (g + momentum v). L2 `weight_decay` enters g."""

    momentum: float = _share(0.0)
    nesterov: bool = False
    weight_decay: float = _from_0(0.0)
    name: ClassVar[str] = "sgd"
    op: ClassVar[Op[Any]] = ops.sgd
    learning_rate: ClassVar[float] = 0.1
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"weight_decay": 0.01},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise InputError("SGD: nesterov needs a momentum; give momentum=0.9, say")


@OPTIMIZERS.register
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s <- rho s + (1 - rho) g^2;  p <- p - lr g / (sqrt(s) + eps), or g / sqrt(s + eps) with `eps_placement` "inside".

    `centered` takes s - mean(g)^2 for s; `momentum` accumulates the moves. PyTorch adds eps outside, Keras 3 inside.
    """

    rho: float = _share(0.99)
    eps: float = _positive(1e-8)
    eps_placement: str = "outside"
    centered: bool = False
    momentum: float = _share(0.0)
    weight_decay: float = _from_0(0.0)
    centred: InitVar[bool | None] = None  # the old name of `centered`
    name: ClassVar[str] = "rmsprop"
    op: ClassVar[Op[Any]] = ops.rmsprop
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"centered": True},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"eps": 1e-3, "eps_placement": "inside"},
        {"eps": 1e-3, "eps_placement": "inside", "centered": True, "momentum": 0.9},
    )

    def __post_init__(self, centred: bool | None) -> None:
        super().__post_init__()
        if centred is not None:
            object.__setattr__(self, new_word("RMSprop", "optimizer", "centred"), centred)
        if self.eps_placement not in ("outside", "inside"):
            raise InputError(
                f"RMSprop: eps_placement {self.eps_placement!r} is not 'outside' or 'inside' of the square root"
            )

    @property
    def eps_inside(self) -> bool:
        """The op's setting for `eps_placement`."""
        return self.eps_placement == "inside"


@OPTIMIZERS.register
@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr (m/c1) / (sqrt(v/c2) + eps).

    c = 1 - beta^t, or 1 with `bias_correction` False. `amsgrad` divides by the largest v so far. `weight_decay` enters
    g (L2).
    """

    beta1: float = _share(0.9)
    beta2: float = _share(0.999)
    eps: float = _positive(1e-8)
    amsgrad: bool = False
    bias_correction: bool = True
    weight_decay: float = _from_0(0.0)
    name: ClassVar[str] = "adam"
    op: ClassVar[Op[Any]] = ops.adam
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"amsgrad": True},
        {"bias_correction": False},
        {"weight_decay": 0.01},
    )

    def scalars(self, t: int) -> tuple[float, ...]:
        return (1 - self.beta1**t, 1 - self.beta2**t) if self.bias_correction else (1.0, 1.0)


@OPTIMIZERS.register
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: p <- p - lr (step of Adam + weight_decay p). Loshchilov and Hutter (2019)."""

    weight_decay: float = _from_0(0.01)
    name: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"amsgrad": True, "bias_correction": False})


@OPTIMIZERS.register
@dataclass(frozen=True)
class Lion(Optimizer):
    """p <- p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p);  m <- beta2 m + (1 - beta2) g. Chen et al. (2023).

    Every step moves a parameter by the learning rate: take one 3 to 10 times smaller than for Adam.
    """

    beta1: float = _share(0.9)
    beta2: float = _share(0.99)
    weight_decay: float = _from_0(0.0)
    name: ClassVar[str] = "lion"
    op: ClassVar[Op[Any]] = ops.lion
    decoupled: ClassVar[bool] = True
    learning_rate: ClassVar[float] = 0.001
    scale_free: ClassVar[bool] = True
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight_decay": 0.01})


def get_optimizer(given: str | dict[str, Any] | Optimizer) -> Optimizer:
    """The optimizer of a name in `OPTIMIZERS` or of a configuration, or the given object itself."""
    return given if isinstance(given, Optimizer) else OPTIMIZERS.make(given)
