"""Optimizers: hyperparameters, slots of state, the scalars that change with the step, and the op.

An optimizer is a frozen dataclass over a rule of `ops.update`: its fields are the user's options, and the rule says
which of them are settings of the op and which switch a slot on. The learning rate is not an option: it comes from a
schedule. Weight decay applies to the weights, not to gamma, beta and biases, which come after `decay_end` in the flat
buffer.
"""

from dataclasses import InitVar, asdict, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

from .. import ops
from ..errors import InputError
from ..ops import Op
from ..ops.update import RULES, Rule
from ..registry import Registry
from ..renamed import new_word
from ..validation import choice, flag, number

__all__ = ["SGD", "Adam", "AdamW", "Lion", "RMSprop"]


def _share(default: float) -> Any:
    """An option in [0, 1): the share of an old value that is kept."""
    return _number(default, least=0, below=1, cure="It is the share of the old value kept.")


def _positive(default: float) -> Any:
    return _number(default, above=0)


def _from_0(default: float) -> Any:
    return _number(default, least=0)


def _number(default: float, **limits: Any) -> Any:
    return field(default=default, metadata={"check": partial(number, **limits)})


def _flag(default: bool) -> Any:
    return field(default=default, metadata={"check": flag})


def _choice(*choices: str) -> Any:
    """An option with the first choice as its default."""
    return field(default=choices[0], metadata={"check": partial(choice, choices=choices)})


@dataclass(frozen=True)
class Optimizer:
    """Base class of optimizers: an op, its options, and the scalars of each step.

    Attributes:
        op: the update of a rule.
        decoupled: whether weight decay shrinks parameters by lr weight_decay p instead of entering the gradient.
        learning_rate: the default of `bnengine train`.
        variants: options that together reach every branch, for the certificate and tests.
    """

    name: ClassVar[str] = ""
    op: ClassVar[Op[Any]]
    decoupled: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 0.005
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def __post_init__(self) -> None:
        for option in fields(self):
            if check := option.metadata.get("check"):
                value = check(type(self).__name__, option.name, getattr(self, option.name))
                object.__setattr__(self, option.name, value)

    @property
    def rule(self) -> Rule:
        """The row of the op."""
        return RULES[self.op.name]

    @property
    def scale_free(self) -> bool:
        """Whether the size of a step is independent of that of the gradients: the rule divides by their squares."""
        return any(slot.square for slot in self.rule.slots.values())

    def slots(self) -> dict[str, bool]:
        """Return the op's state arrays in the order of its arguments, and whether this variant has each."""
        return {name: slot.on is None or bool(getattr(self, slot.on)) for name, slot in self.rule.slots.items()}

    def row(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """Return the scalars of successful step t = 1, 2, ..., in float64: a row of the op's table."""
        return (learning_rate, *self.scalars(t))

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return what follows the learning rate in the row of successful step t."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return the op's constant options."""
        constants = {name: getattr(self, name) for name in self.rule.settings}
        return constants | {"weight_decay": getattr(self, "weight_decay", 0.0), "decoupled": self.decoupled}

    def config(self) -> dict[str, Any]:
        """Return JSON values from which `get_optimizer` makes the same optimizer."""
        return {"name": self.name, **asdict(self)}


OPTIMIZERS = Registry[Optimizer]("optimizer")


@OPTIMIZERS.register
@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum v + g;  p <- p - lr v; with `nesterov` p <- p - lr (g + momentum v).

    Args:
        momentum: the share of v that a step keeps, in [0, 1).
        nesterov: whether to use Nesterov's form (Sutskever et al. 2013); needs a momentum above 0.
        weight_decay: L2, at least 0: g <- g + weight_decay p.

    Raises:
        InputError: an option out of its range.
    """

    momentum: float = _share(0.0)
    nesterov: bool = _flag(False)
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
            raise InputError("SGD: nesterov needs a momentum above 0, got 0.0. Give momentum=0.9, for example.")


@OPTIMIZERS.register
@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s <- rho s + (1 - rho) g^2;  p <- p - lr g / (sqrt(s) + eps), or g / sqrt(s + eps) with `eps_placement` "inside".

    PyTorch adds eps outside the square root, Keras 3 inside. Tieleman and Hinton (2012).

    Args:
        rho: the share of s that a step keeps, in [0, 1).
        eps: added to the divisor, above 0.
        eps_placement: "outside" or "inside" the square root.
        centered: whether s - mean(g)^2 replaces s.
        momentum: the share of the accumulated moves that a step keeps, in [0, 1).
        weight_decay: L2, at least 0: g <- g + weight_decay p.
        centred: the old name of `centered`.

    Raises:
        InputError: an option out of its range.
    """

    rho: float = _share(0.99)
    eps: float = _positive(1e-8)
    eps_placement: str = _choice("outside", "inside")
    centered: bool = _flag(False)
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
        if centred is not None:
            object.__setattr__(self, new_word("RMSprop", "optimizer", "centred"), centred)
        super().__post_init__()

    @property
    def eps_inside(self) -> bool:
        """The op's setting for `eps_placement`."""
        return self.eps_placement == "inside"


@OPTIMIZERS.register
@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr (m/c1) / (sqrt(v/c2) + eps).

    c = 1 - beta^t in step t. Kingma and Ba (2015).

    Args:
        beta1, beta2: the shares of m and v that a step keeps, in [0, 1).
        eps: added outside the square root, above 0.
        amsgrad: whether to divide by the largest v so far (Reddi et al. 2018).
        bias_correction: False sets c1 = c2 = 1.
        weight_decay: L2, at least 0: g <- g + weight_decay p.

    Raises:
        InputError: an option out of its range.
    """

    beta1: float = _share(0.9)
    beta2: float = _share(0.999)
    eps: float = _positive(1e-8)
    amsgrad: bool = _flag(False)
    bias_correction: bool = _flag(True)
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
    """Adam with decoupled weight decay: p <- p - lr (step of Adam + weight_decay p). Loshchilov and Hutter (2019).

    Args:
        beta1, beta2, eps, amsgrad, bias_correction: as in Adam.
        weight_decay: at least 0; it shrinks p and does not enter m and v.

    Raises:
        InputError: an option out of its range.
    """

    weight_decay: float = _from_0(0.01)
    name: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"amsgrad": True, "bias_correction": False})


@OPTIMIZERS.register
@dataclass(frozen=True)
class Lion(Optimizer):
    """p <- p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p);  m <- beta2 m + (1 - beta2) g. Chen et al. (2023).

    Every step moves a parameter by the learning rate: choose it 3 to 10 times smaller than for Adam.

    Args:
        beta1: the share of m in the sign, in [0, 1).
        beta2: the share of m that a step keeps, in [0, 1).
        weight_decay: decoupled, at least 0.

    Raises:
        InputError: an option out of its range.
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


def get_optimizer(optimizer: str | dict[str, Any] | Optimizer) -> Optimizer:
    """Return the optimizer of a name in `OPTIMIZERS` or of a configuration; an optimizer is returned unchanged."""
    return optimizer if isinstance(optimizer, Optimizer) else OPTIMIZERS.make(optimizer)
