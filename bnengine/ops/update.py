"""Parameter updates and step counters.

A rule gives the move of each parameter in units of the learning rate. Around every rule is `where(ok, new, old)`: a
skipped step is data, not a branch, and leaves every bit as it was. `table` holds the scalars that change from step to
step, a row for each step, and `counters` says which row is next; both live with the parameters. `copy16` is the
parameters once more in 16 bits, for products: the update writes it too.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import Op, op

__all__ = ["adam", "add_epoch_sums", "average", "count_step", "lion", "rmsprop", "sgd"]
STEPS, ROW, SKIPPED, IN_A_ROW, LONGEST = range(5)
Ranges = tuple[tuple[int, int], ...]


class Advanced(NamedTuple):
    """The counters after a step; the cursor of the data, if there is one."""

    counters: Array
    cursor: Array | None


@op(family="update")
def count_step(counters: Array, ok: Array, cursor: Array | None = None, *, rows: int = 0) -> Advanced:
    """counters (5,) int64 = (steps, row of the table, skipped, in a row, longest such run), after one more step.

    cursor (2,) int64 = (position, steps of the epoch), which goes on by (rows, 1) whether the step was ok or not.
    """
    xp = namespace(counters)
    good = xp.astype(ok, counters.dtype)
    in_a_row = (counters[IN_A_ROW : IN_A_ROW + 1] + 1) * (1 - good)
    longest = counters[LONGEST:]
    longest = xp.where(in_a_row > longest, in_a_row, longest)
    counted = xp.concat([counters[:SKIPPED] + good, counters[SKIPPED:IN_A_ROW] + (1 - good), in_a_row, longest])
    moved = None if cursor is None else xp.concat([cursor[:1] + rows, cursor[1:] + 1])
    return Advanced(counted, moved)


@op(family="update")
def add_epoch_sums(sums: Array, value: Array, divisor: Array, correct: Array, ok: Array, *, rows: int) -> Array:
    """sums (4,) float64 = (loss times its divisor, divisor, rows right, rows) of an epoch so far, where ok."""
    xp = namespace(sums)
    value, divisor = (xp.astype(a, xp.float64) for a in (value, divisor))
    new = xp.concat([value * divisor, divisor, correct, xp.full_like(divisor, rows)])
    return xp.where(ok, sums + new, sums)


# -- what every rule is made of


class Slot(NamedTuple):
    """A state array of a rule: as long as the parameters, of their dtype, 0 before the first step.

    `on`: the optimizer's option that a variant without it lacks the slot for; None: every variant has it. `square`:
    whether it holds squares of gradients, which rounding never leaves below 0.
    """

    on: str | None = None
    square: bool = False


class Call(NamedTuple):
    """The arrays of an update by their names; `slots` in the order of the rule, None where a variant lacks one."""

    parameters: Array
    gradients: Array
    slots: tuple[Array | None, ...]
    table: Array
    counters: Array
    ok: Array
    factor: Array
    copy16: Array | None = None

    def args(self) -> tuple[Array | None, ...]:
        """The arguments of the op in their order, the 16-bit copy only where there is one."""
        p, g, slots, *control, copy16 = self
        return (p, g, *slots, *control, *(() if copy16 is None else (copy16,)))


@dataclass(frozen=True)
class Rule:
    """An optimizer's row: its name, the move of an element, and what that takes.

    `move(g, *slots, *scalars, **settings)` is the move and the new slots. `slots` that a variant may lack come last.
    `scalars` change with the step and follow the learning rate in the table's rows. `settings` are constant options
    with their defaults, numbers and flags; kernels get them in this order.
    """

    name: str
    move: Callable[..., tuple[Array, tuple[Array | None, ...]]]
    slots: Mapping[str, Slot]
    scalars: tuple[str, ...]
    settings: Mapping[str, float | bool]
    state: Any  # the named tuple of an update: parameters, the slots, copy16

    def call(self, *args: Any) -> Call:
        """The arguments of the op, by name."""
        p, g, *rest = args
        return Call(p, g, tuple(rest[: len(self.slots)]), *rest[len(self.slots) :])

    @property
    def columns(self) -> int:
        """Of the table: the learning rate and the scalars."""
        return 1 + len(self.scalars)

    @property
    def optional(self) -> int:
        """How many of the last slots a variant may lack."""
        return sum(slot.on is not None for slot in self.slots.values())

    def names(self, kind: type) -> list[str]:
        """The names of the settings that are numbers (`float`) or true or false (`bool`), in their order."""
        return [name for name, value in self.settings.items() if (type(value) is bool) == (kind is bool)]

    def numbers(self, settings: Mapping[str, Any]) -> list[float]:
        """The settings that are numbers, given or by default, in their order."""
        return [float(settings.get(k, v)) for k, v in self.settings.items() if type(v) is not bool]

    def flags(self, settings: Mapping[str, Any]) -> list[bool]:
        """The settings that are true or false, given or by default, in their order."""
        return [bool(settings.get(k, v)) for k, v in self.settings.items() if type(v) is bool]

    def check(self, call: Call, settings: Mapping[str, Any]) -> None:
        """TypeError for a slot that is missing though every variant has it, and for a setting of no rule."""
        for (name, slot), array in zip(self.slots.items(), call.slots, strict=True):
            if array is None and slot.on is None:
                raise TypeError(f"{self.name}: the slot {name!r} is None. Every variant has it: give an array.")
        if unknown := settings.keys() - self.settings.keys():
            raise TypeError(f"{self.name}: no option {min(unknown)!r}. Its options are {', '.join(self.settings)}.")


RULES: dict[str, Rule] = {}


def rule(**slots: Slot) -> Callable[[Callable[..., Any]], Op[Any]]:
    """Register `move(g, *slots, *scalars, *, settings)` as a rule, and its update of flat buffers as an op."""

    def register(move: Callable[..., Any]) -> Op[Any]:
        parameters = signature(move).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        name, fields = move.__name__, ("parameters", *slots, "copy16")
        state: Any = namedtuple(f"{name.title()}State", fields, defaults=(None,))  # type: ignore[misc]
        row = Rule(name, move, slots, tuple(positional[1 + len(slots) :]), settings, state)
        RULES[row.name] = row
        return op(family="update")(_updated(row))

    return register


def _updated(row: Rule) -> Callable[..., Any]:
    """The reference of a rule's op: parameters, slots and 16-bit copy after a step."""

    def update(
        *arrays: Array, decay_end: int, weight_decay: float = 0.0, decoupled: bool = False, frozen: Ranges = (),
        **settings: Any,
    ) -> Any:  # fmt: skip
        p, g, slots, table, counters, ok, factor, copy16 = row.call(*arrays)
        xp = namespace(p)
        lr, *scalars = _scalars(table, counters)
        decay = _decayed(p, decay_end, weight_decay) if weight_decay else None
        g = g * factor
        if decay is not None and not decoupled:
            g = g + decay
        move, new_slots = row.move(g, *slots, *scalars, **settings)
        if decay is not None and decoupled:
            move = move + decay
        changes = ok & ~_inside(frozen, p) if frozen else ok
        news, olds = (p - lr * move, *new_slots), (p, *slots)
        kept = [None if old is None else xp.where(changes, new, old) for new, old in zip(news, olds, strict=True)]
        new_shadow = None if copy16 is None else xp.where(ok, xp.astype(kept[0], copy16.dtype), copy16)
        return row.state(*kept, new_shadow)

    update.__name__, update.__doc__ = row.name, row.move.__doc__
    update.__annotations__["return"] = row.state
    return update


def _scalars(table: Array, counters: Array) -> list[Array]:
    """The row of the table that is next, as arrays of shape (1,); after its end the last row stays."""
    xp = namespace(table)
    last = xp.full_like(counters[ROW : ROW + 1], table.shape[0] - 1)
    row = counters[ROW : ROW + 1]
    row = xp.take(table, xp.where(row < last, row, last), axis=0)
    return [row[:, i] for i in range(table.shape[1])]


def _inside(ranges: Ranges, like: Array) -> Array:
    """Which elements of a flat buffer lie in one of the ranges [a, b)."""
    xp = namespace(like)
    position = xp.arange(like.shape[0])
    inside = xp.zeros(like.shape, dtype=xp.bool)
    for a, b in ranges:
        inside = inside | ((position >= a) & (position < b))
    return inside


def _decayed(p: Array, decay_end: int, weight_decay: float) -> Array:
    """weight_decay p on [0, decay_end), then 0: gamma, beta and biases are not decayed."""
    xp = namespace(p)
    return xp.where(xp.arange(p.shape[0]) < decay_end, p * weight_decay, xp.zeros_like(p))


# -- the rules


@rule(velocity=Slot("momentum"))
def sgd(g: Array, velocity: Array | None, *, momentum: float = 0.0, nesterov: bool = False) -> Any:
    """v <- momentum v + g;  p <- p - lr v, or with Nesterov p - lr (g + momentum v).

    The op takes flat buffers (n,): parameters, gradients, the slots, then `table` with a row (lr, scalars) for each
    step, `counters`, `ok`, `factor` and perhaps `copy16`. `factor` clips g. Weight decay acts on [0, decay_end): it
    adds weight_decay p to g or, `decoupled`, to what lr multiplies. Ranges of `frozen` keep their parameters and state.
    `copy16` becomes p rounded to its dtype. Polyak (1964); Nesterov in the form of Sutskever et al. (2013).
    """
    v = g if velocity is None else velocity * momentum + g
    return g + momentum * v if nesterov else v, (v,)


@rule(square=Slot(square=True), mean=Slot("centered"), velocity=Slot("momentum"))
def rmsprop(
    g: Array, square: Array, mean: Array | None, velocity: Array | None, *,
    rho: float = 0.99, eps: float = 1e-8, eps_inside: bool = False, momentum: float = 0.0,
) -> Any:  # fmt: skip
    """s <- rho s + (1 - rho) g^2;  v <- momentum v + g / (sqrt(s) + eps);  p <- p - lr v.

    `eps_inside`: the divisor is sqrt(s + eps). With a `mean` (centered): mu <- rho mu + (1 - rho) g, and s - mu^2 takes
    the place of s in the divisor. The rest as in `sgd`. Tieleman and Hinton (2012), lecture 6.5; centered: Graves
    (2013), eq. 38 on.
    """
    xp = namespace(g)
    square = square * rho + g * g * (1 - rho)
    mean = None if mean is None else mean * rho + g * (1 - rho)
    spread = square if mean is None else square - mean * mean
    spread = xp.where(spread > 0, spread, xp.zeros_like(spread))  # rounding can leave a difference below 0
    divisor = xp.sqrt(spread + eps) if eps_inside else xp.sqrt(spread) + eps
    v = g / divisor if velocity is None else velocity * momentum + g / divisor
    return v, (square, mean, v)


@rule(m=Slot(), v=Slot(square=True), largest=Slot("amsgrad", square=True))
def adam(
    g: Array, m: Array, v: Array, largest: Array | None, c1: Array, c2: Array, *,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
) -> Any:  # fmt: skip
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr (m/c1) / (sqrt(v/c2) + eps).

    c = 1 - beta^t, or 1 without bias correction. With `largest` (AMSGrad) the largest v so far takes v's place in the
    divisor. The rest as in `sgd`. Kingma and Ba (2015), Algorithm 1; Reddi et al. (2018); Loshchilov and Hutter (2019)
    for decoupled decay.
    """
    xp = namespace(g)
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    largest = None if largest is None else xp.where(v > largest, v, largest)
    return m / c1 / (xp.sqrt((v if largest is None else largest) / c2) + eps), (m, v, largest)


@rule(m=Slot())
def lion(g: Array, m: Array, *, beta1: float = 0.9, beta2: float = 0.99) -> Any:
    """c = beta1 m + (1 - beta1) g;  p <- p - lr sign(c);  m <- beta2 m + (1 - beta2) g.

    The rest as in `sgd`. Chen et al. (2023), Algorithm 2, with decoupled decay.
    """
    xp = namespace(g)
    return xp.sign(m * beta1 + g * (1 - beta1)), (m * beta2 + g * (1 - beta2),)


@op(family="update")
def average(averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, where ok: the exponential average of the weights, or of the statistics."""
    xp = namespace(averaged)
    return xp.where(ok, averaged * decay + values * (1 - decay), averaged)
