"""What ends an optimizer step: update the flat buffers, count it.

Every rule is `where(ok, new, old)`: a skipped step is data, not a branch, and leaves every bit as it was. `table`
holds the scalars that change from step to step, a row a step, and `counters` says which row is next; both live with
the parameters. `shadow` is the parameters once more in 16 bits, for products: the update writes it too.
"""

from typing import Any, NamedTuple

from .._typing import Array
from ..arrays.namespaces import namespace
from ..runtime.op import op

STEPS, ROW, SKIPPED, IN_A_ROW, LONGEST = range(5)
Ranges = tuple[tuple[int, int], ...]


class Advanced(NamedTuple):
    """The counters after a step; the cursor of the data, if there is one."""

    counters: Array
    cursor: Array | None


@op(family="update")
def advance(counters: Array, ok: Array, cursor: Array | None = None, *, rows: int = 0) -> Advanced:
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
def tally(sums: Array, value: Array, normaliser: Array, hits: Array, ok: Array, *, rows: int) -> Array:
    """sums (4,) float64 = (loss times its divisor, divisor, rows right, rows) of an epoch so far, where ok."""
    xp = namespace(sums)
    value, normaliser = (xp.astype(a, xp.float64) for a in (value, normaliser))
    new = xp.concat([value * normaliser, normaliser, hits, xp.full_like(normaliser, rows)])
    return xp.where(ok, sums + new, sums)


def _scalars(table: Array, counters: Array) -> list[Array]:
    """The row of the table that is next, as arrays of shape (1,); behind its end the last row stays."""
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


class _Common(NamedTuple):
    """What the rules share: gradients (clipped, with L2 decay), the scalars of the step, where to change."""

    g: Array
    scalars: list[Array]
    changes: Array


def _begin(
    p: Array,
    g: Array,
    table: Array,
    counters: Array,
    ok: Array,
    factor: Array,
    border: int,
    weight_decay: float,
    frozen: Ranges,
) -> _Common:
    g = g * factor
    if weight_decay:
        g = g + _decayed(p, border, weight_decay)
    return _Common(g, _scalars(table, counters), ok & ~_inside(frozen, p) if frozen else ok)


def _decayed(p: Array, border: int, weight_decay: float) -> Array:
    """weight_decay p on [0, border), 0 behind it: gamma, beta and biases are not decayed."""
    xp = namespace(p)
    return xp.where(xp.arange(p.shape[0]) < border, p * weight_decay, xp.zeros_like(p))


def _shadowed(shadow: Array | None, ok: Array, parameters: Array) -> Array | None:
    """The shadow of the new parameters where ok, else the old one."""
    if shadow is None:
        return None
    xp = namespace(parameters)
    return xp.where(ok, xp.astype(parameters, shadow.dtype), shadow)


def _settled(changes: Array, news: tuple[Array | None, ...], olds: tuple[Array | None, ...]) -> list[Any]:
    """Each new array where `changes`, else the old one; a slot that the variant does not have stays None."""
    xp = namespace(changes)
    return [None if old is None else xp.where(changes, new, old) for new, old in zip(news, olds, strict=True)]


class SgdState(NamedTuple):
    """Parameters after a step; the velocity, None without momentum; the shadow, None without one."""

    parameters: Array
    velocity: Array | None
    shadow: Array | None = None


@op(family="update")
def sgd(
    parameters: Array, gradients: Array, velocity: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0, frozen: Ranges = (),
) -> SgdState:  # fmt: skip
    """v <- momentum v + g;  p <- p - lr v, or with Nesterov p - lr (g + momentum v).

    g is clipped by `factor`, with weight_decay p added on [0, border). Flat buffers (n,); table rows (lr,); ranges of
    `frozen` keep their parameters and state; `shadow` becomes p rounded to its dtype. Polyak (1964); Nesterov in the
    form of Sutskever et al. (2013).
    """
    g, (lr,), changes = _begin(parameters, gradients, table, counters, ok, factor, border, weight_decay, frozen)
    v = g if velocity is None else velocity * momentum + g
    new = parameters - lr * (g + momentum * v if nesterov else v)
    state = SgdState(*_settled(changes, (new, v), (parameters, velocity)))
    return state._replace(shadow=_shadowed(shadow, ok, state.parameters))


class RmspropState(NamedTuple):
    """Parameters and mean square after a step; mean, None if not centred; velocity, None without momentum; shadow."""

    parameters: Array
    square: Array
    mean: Array | None
    velocity: Array | None
    shadow: Array | None = None


@op(family="update")
def rmsprop(
    parameters: Array, gradients: Array, square: Array, mean: Array | None, velocity: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, rho: float = 0.99, eps: float = 1e-8, eps_inside: bool = False,
    momentum: float = 0.0, weight_decay: float = 0.0, frozen: Ranges = (),
) -> RmspropState:  # fmt: skip
    """s <- rho s + (1 - rho) g^2;  v <- momentum v + g / (sqrt(s) + eps);  p <- p - lr v.

    `eps_inside`: the divisor is sqrt(s + eps). With a `mean` (centred): mu <- rho mu + (1 - rho) g, and s - mu^2 takes
    the place of s in the divisor. Table rows (lr,); the rest as in `sgd`. Tieleman and Hinton (2012), lecture 6.5;
    centred: Graves (2013), eq. 38 on.
    """
    xp = namespace(parameters)
    g, (lr,), changes = _begin(parameters, gradients, table, counters, ok, factor, border, weight_decay, frozen)
    new_square = square * rho + g * g * (1 - rho)
    new_mean = None if mean is None else mean * rho + g * (1 - rho)
    spread = new_square if new_mean is None else new_square - new_mean * new_mean
    spread = xp.where(spread > 0, spread, xp.zeros_like(spread))  # rounding can leave a difference below 0
    divisor = xp.sqrt(spread + eps) if eps_inside else xp.sqrt(spread) + eps
    v = g / divisor if velocity is None else velocity * momentum + g / divisor
    news, olds = (parameters - lr * v, new_square, new_mean, v), (parameters, square, mean, velocity)
    state = RmspropState(*_settled(changes, news, olds))
    return state._replace(shadow=_shadowed(shadow, ok, state.parameters))


class AdamState(NamedTuple):
    """Parameters, first and second moment after a step; the largest second moment, None without AMSGrad; shadow."""

    parameters: Array
    m: Array
    v: Array
    largest: Array | None
    shadow: Array | None = None


@op(family="update")
def adam(
    parameters: Array, gradients: Array, m: Array, v: Array, largest: Array | None,
    table: Array, counters: Array, ok: Array, factor: Array, shadow: Array | None = None, *,
    border: int, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 0.0, decoupled: bool = False, frozen: Ranges = (),
) -> AdamState:  # fmt: skip
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;  p <- p - lr (m/c1) / (sqrt(v/c2) + eps).

    Table rows (lr, c1, c2) with c = 1 - beta^t, or 1 without bias correction. With `largest` (AMSGrad) the largest v so
    far takes v's place in the divisor. `decoupled`: weight decay shrinks p by lr weight_decay p instead of entering g.
    The rest as in `sgd`. Kingma and Ba (2015), Algorithm 1; Reddi et al. (2018); Loshchilov and Hutter (2019).
    """
    xp = namespace(parameters)
    l2 = 0.0 if decoupled else weight_decay
    g, (lr, c1, c2), changes = _begin(parameters, gradients, table, counters, ok, factor, border, l2, frozen)
    new_m = m * beta1 + g * (1 - beta1)
    new_v = v * beta2 + g * g * (1 - beta2)
    new_largest = None if largest is None else xp.where(new_v > largest, new_v, largest)
    move = new_m / c1 / (xp.sqrt((new_v if new_largest is None else new_largest) / c2) + eps)
    if decoupled and weight_decay:
        move = move + _decayed(parameters, border, weight_decay)
    news, olds = (parameters - lr * move, new_m, new_v, new_largest), (parameters, m, v, largest)
    state = AdamState(*_settled(changes, news, olds))
    return state._replace(shadow=_shadowed(shadow, ok, state.parameters))


@op(family="update")
def average(averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    """a <- decay a + (1 - decay) values, where ok: the exponential average of the weights, or of the statistics."""
    xp = namespace(averaged)
    return xp.where(ok, averaged * decay + values * (1 - decay), averaged)
