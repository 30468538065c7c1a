"""Parameter updates and step counters.

A rule gives the move of each parameter in units of the learning rate. An op wraps it in `where(ok, new, old)`: a
skipped step is data, not a branch, and keeps every bit. `table` holds the scalars that change from step to step, one
row per step, and `counters` hold the number of the next row. `copy16` is a copy of the parameters in 16 bits, for
products, which the update writes too.
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
    """The counters after a step, and the cursor of the data, if there is one."""

    counters: Array
    cursor: Array | None


@op(family="update")
def count_step(counters: Array, ok: Array, cursor: Array | None = None, *, rows: int = 0) -> Advanced:
    """Count one more step, and move the cursor of the data.

    Args:
        counters: (5,) int64: steps, row of the table, skipped, skipped in a row, longest such run.
        ok: (1,) bool, whether the step succeeded.
        cursor: (2,) int64: position in the order, step of the epoch. It moves by (rows, 1), ok or not.
        rows: the rows of the step.
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
    """sums + (value divisor, divisor, correct, rows) if ok.

    Args:
        sums: (4,) float64, of the epoch so far.
        value, divisor: (1,), the step's loss and what it was divided by.
        correct: (1,) float64, rows classified correctly.
        ok: (1,) bool.
        rows: the rows of the step.
    """
    xp = namespace(sums)
    value, divisor = (xp.astype(a, xp.float64) for a in (value, divisor))
    new = xp.concat([value * divisor, divisor, correct, xp.full_like(divisor, rows)])
    return xp.where(ok, sums + new, sums)


# -- parts of every rule


class Slot(NamedTuple):
    """A state array of a rule: like the parameters, 0 before the first step.

    Attributes:
        on: the option that switches the slot on; None if every variant has it.
        square: whether it holds squares of gradients, which are never below 0.
    """

    on: str | None = None
    square: bool = False


class Call(NamedTuple):
    """The arguments of an update by name; `slots` in the order of the rule, None where a variant lacks one."""

    parameters: Array
    gradients: Array
    slots: tuple[Array | None, ...]
    table: Array
    counters: Array
    ok: Array
    factor: Array
    copy16: Array | None = None

    def args(self) -> tuple[Array | None, ...]:
        """The arguments in the order of the op, copy16 only if there is one."""
        p, g, slots, *control, copy16 = self
        return (p, g, *slots, *control, *(() if copy16 is None else (copy16,)))


@dataclass(frozen=True)
class Rule:
    """An optimizer's row: its name, the move of an element, its state and its scalars.

    Attributes:
        move: from (g, *slots, *scalars, **settings) to the move and the new slots.
        slots: the state arrays by name; those that a variant may lack come last.
        scalars: the scalars that change with the step; in the table they follow the learning rate.
        settings: constant options with their defaults, numbers and flags, in the order in which kernels take them.
        state: the named tuple of an update's results: parameters, the slots, copy16.
    """

    name: str
    move: Callable[..., tuple[Array, tuple[Array | None, ...]]]
    slots: Mapping[str, Slot]
    scalars: tuple[str, ...]
    settings: Mapping[str, float | bool]
    state: Any

    def call(self, *args: Any) -> Call:
        """The arguments of the op, by name."""
        p, g, *rest = args
        return Call(p, g, tuple(rest[: len(self.slots)]), *rest[len(self.slots) :])

    @property
    def columns(self) -> int:
        """The columns of the table: the learning rate and the scalars."""
        return 1 + len(self.scalars)

    def names(self, kind: type) -> list[str]:
        """Return the names of the settings that are numbers (`float`) or true or false (`bool`), in their order."""
        return [name for name, value in self.settings.items() if (type(value) is bool) == (kind is bool)]

    def numbers(self, settings: Mapping[str, Any]) -> list[float]:
        """The settings that are numbers, in their order."""
        return [float(settings.get(k, v)) for k, v in self.settings.items() if type(v) is not bool]

    def flags(self, settings: Mapping[str, Any]) -> list[bool]:
        """The settings that are flags, in their order."""
        return [bool(settings.get(k, v)) for k, v in self.settings.items() if type(v) is bool]

    def check(self, call: Call, settings: Mapping[str, Any]) -> None:
        """Raise TypeError for a missing slot that every variant has, and for an unknown setting."""
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
    """The reference of a rule's op: parameters, slots and copy16 after a step."""

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
        pairs = zip((p - lr * move, *new_slots), (p, *slots), strict=True)
        new_p, *state = (None if old is None else xp.where(changes, new, old) for new, old in pairs)
        new_copy16 = None if copy16 is None else xp.where(ok, xp.astype(new_p, copy16.dtype), copy16)
        return row.state(new_p, *state, new_copy16)

    update.__name__, update.__doc__ = row.name, row.move.__doc__
    update.__annotations__["return"] = row.state
    return update


def _scalars(table: Array, counters: Array) -> list[Array]:
    """The current row of the table, as arrays (1,); beyond its end, the last row."""
    xp = namespace(table)
    last = xp.full_like(counters[ROW : ROW + 1], table.shape[0] - 1)
    row = counters[ROW : ROW + 1]
    row = xp.take(table, xp.where(row < last, row, last), axis=0)
    return [row[:, i] for i in range(table.shape[1])]


def _inside(ranges: Ranges, like: Array) -> Array:
    """Mark the elements of a flat buffer that lie in one of the ranges [a, b)."""
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

    Polyak (1964); Nesterov in the form of Sutskever et al. (2013). What follows is common to all optimizers.

    Args:
        parameters, gradients: p and g, (n,), flat.
        velocity: v, (n,); None without momentum.
        table: (steps, 1 + scalars), a row (lr, scalars) per step.
        counters: (5,) int64, see `count_step`.
        ok: (1,) bool; if False, nothing changes.
        factor: (1,), multiplies g to clip it.
        copy16: (n,) in 16 bits, becomes the rounded parameters; may be left out.
        decay_end: weight decay acts on [0, decay_end).
        weight_decay: adds weight_decay p to g, or, if `decoupled`, to what lr multiplies.
        frozen: ranges [a, b) that keep their parameters and state.
    """
    v = g if velocity is None else velocity * momentum + g
    return g + momentum * v if nesterov else v, (v,)


@rule(square=Slot(square=True), mean=Slot("centered"), velocity=Slot("momentum"))
def rmsprop(
    g: Array, square: Array, mean: Array | None, velocity: Array | None, *,
    rho: float = 0.99, eps: float = 1e-8, eps_inside: bool = False, momentum: float = 0.0,
) -> Any:  # fmt: skip
    """s <- rho s + (1 - rho) g^2;  v <- momentum v + g / (sqrt(s) + eps);  p <- p - lr v.

    With `eps_inside` the divisor is sqrt(s + eps). With a `mean` (centered), mu <- rho mu + (1 - rho) g, and s - mu^2
    replaces s in the divisor. The other arguments are those of `sgd`. Tieleman and Hinton (2012), lecture 6.5;
    centered: Graves (2013), equation 38 on.
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

    c = 1 - beta^t, or 1 without bias correction. With `largest` (AMSGrad), the largest v so far replaces v in the
    divisor. The other arguments are those of `sgd`. Kingma and Ba (2015), Algorithm 1; Reddi et al. (2018); Loshchilov
    and Hutter (2019) for decoupled decay.
    """
    xp = namespace(g)
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    largest = None if largest is None else xp.where(v > largest, v, largest)
    return m / c1 / (xp.sqrt((v if largest is None else largest) / c2) + eps), (m, v, largest)


@rule(m=Slot())
def lion(g: Array, m: Array, *, beta1: float = 0.9, beta2: float = 0.99) -> Any:
    """c = beta1 m + (1 - beta1) g;  p <- p - lr sign(c);  m <- beta2 m + (1 - beta2) g.

    The other arguments are those of `sgd`. Chen et al. (2023), Algorithm 2, with decoupled decay.
    """
    xp = namespace(g)
    return xp.sign(m * beta1 + g * (1 - beta1)), (m * beta2 + g * (1 - beta2),)


@op(family="update")
def average(averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, if ok: the exponential average of weights or of statistics.

    Args:
        averaged, values: a and values, of one shape and dtype.
        ok: (1,) bool.
        decay: the share of the old average that is kept.
    """
    xp = namespace(averaged)
    return xp.where(ok, averaged * decay + values * (1 - decay), averaged)
