"""Optimizers: hyperparameters, the slots of state they need, the scalars that change with the step, the op they call.

A learning rate is not among them: it comes from a schedule. Weight decay applies to the weights; gamma, beta and
biases stay out of it (they lie behind the border in the flat buffer).
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from .. import ops
from ..errors import InputError
from ..ops import Op
from ..registry import configured


@dataclass(frozen=True)
class Optimizer:
    """What a training step needs to know of an optimizer."""

    name: ClassVar[str] = ""
    op: ClassVar[Op[Any]]

    def slots(self) -> dict[str, bool]:
        """The op's state arrays in the order of its arguments, and whether this variant has each."""
        raise NotImplementedError

    def row(self, learning_rate: float, t: int) -> tuple[float, ...]:
        """The scalars of successful step t = 1, 2, ..., in float64: a row of the op's table."""
        return (learning_rate,)

    def options(self) -> dict[str, Any]:
        """The op's constant options."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """JSON values that `get_optimizer` makes the same optimizer of."""
        return {"name": self.name, **asdict(self)}


def _check(
    owner: str, *, shares: dict[str, float] | None = None, positive: dict[str, float] | None = None, weight_decay: float
) -> None:
    for name, value in (shares or {}).items():
        if not 0 <= value < 1:
            raise InputError(f"{owner}: {name} {value!r} is not in [0, 1); it is the share of the old value kept")
    for name, value in (positive or {}).items():
        if not 0 < value < float("inf"):
            raise InputError(f"{owner}: {name} {value!r} is not a finite number above 0")
    if not 0 <= weight_decay < float("inf"):
        raise InputError(f"{owner}: weight_decay {weight_decay!r} is not a finite number from 0 up")


@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum v + g;  p <- p - lr v; with `nesterov` p <- p - lr (g + momentum v). L2 `weight_decay` enters g."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    name: ClassVar[str] = "sgd"
    op: ClassVar[Op[Any]] = ops.sgd

    def __post_init__(self) -> None:
        _check("SGD", shares={"momentum": self.momentum}, weight_decay=self.weight_decay)
        if self.nesterov and self.momentum == 0:
            raise InputError("SGD: nesterov needs a momentum; give momentum=0.9, say")

    def slots(self) -> dict[str, bool]:
        return {"velocity": self.momentum > 0}

    def options(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov, "weight_decay": self.weight_decay}


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s <- rho s + (1 - rho) g^2;  p <- p - lr g / (sqrt(s) + eps), or g / sqrt(s + eps) with `eps_placement` "inside".

    `centred` takes s - mean(g)^2 for s; `momentum` accumulates the moves. PyTorch adds eps outside, Keras 3 inside.
    """

    rho: float = 0.99
    eps: float = 1e-8
    eps_placement: str = "outside"
    centred: bool = False
    momentum: float = 0.0
    weight_decay: float = 0.0
    name: ClassVar[str] = "rmsprop"
    op: ClassVar[Op[Any]] = ops.rmsprop

    def __post_init__(self) -> None:
        shares = {"rho": self.rho, "momentum": self.momentum}
        _check("RMSprop", shares=shares, positive={"eps": self.eps}, weight_decay=self.weight_decay)
        if self.eps_placement not in ("outside", "inside"):
            raise InputError(
                f"RMSprop: eps_placement {self.eps_placement!r} is not 'outside' or 'inside' of the square root"
            )

    def slots(self) -> dict[str, bool]:
        return {"square": True, "mean": self.centred, "velocity": self.momentum > 0}

    def options(self) -> dict[str, Any]:
        inside = self.eps_placement == "inside"
        kept = {"rho": self.rho, "eps": self.eps, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return kept | {"eps_inside": inside}


@dataclass(frozen=True)
class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr (m/c1) / (sqrt(v/c2) + eps).

    c = 1 - beta^t, or 1 with `bias_correction` False. `amsgrad` divides by the largest v so far. `weight_decay` enters
    g (L2).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    amsgrad: bool = False
    bias_correction: bool = True
    weight_decay: float = 0.0
    name: ClassVar[str] = "adam"
    op: ClassVar[Op[Any]] = ops.adam
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        shares = {"beta1": self.beta1, "beta2": self.beta2}
        _check(type(self).__name__, shares=shares, positive={"eps": self.eps}, weight_decay=self.weight_decay)

    def slots(self) -> dict[str, bool]:
        return {"m": True, "v": True, "largest": self.amsgrad}

    def row(self, learning_rate: float, t: int) -> tuple[float, ...]:
        if not self.bias_correction:
            return learning_rate, 1.0, 1.0
        return learning_rate, 1 - self.beta1**t, 1 - self.beta2**t

    def options(self) -> dict[str, Any]:
        kept = {"beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        return kept | {"weight_decay": self.weight_decay, "decoupled": self.decoupled}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: p <- p - lr (step of Adam + weight_decay p). Loshchilov and Hutter (2019)."""

    weight_decay: float = 0.01
    name: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True


OPTIMIZERS: dict[str, type[Optimizer]] = {cls.name: cls for cls in (SGD, RMSprop, Adam, AdamW)}


def get_optimizer(given: str | dict[str, Any] | Optimizer) -> Optimizer:
    """The optimizer of a name ("sgd", "rmsprop", "adam", "adamw") or configuration, or the given object itself."""
    found: Optimizer = given if isinstance(given, Optimizer) else configured(given, OPTIMIZERS, "optimizer")
    return found
