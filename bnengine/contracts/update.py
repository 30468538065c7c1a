"""The contracts of the optimizers' rules and of a step's counters: examples, error bounds."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name, is_narrow
from ..ops import Example
from ..ops.update import AdamState, Advanced, RmspropState, SgdState, adam, advance, average, rmsprop, sgd, tally
from ._contract import contract


def _examples_advance(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        yield Example(f"ok {ok}", (np.asarray([7, 3, 2, 1, 1]), np.asarray([ok])))
        yield Example(
            f"data, ok {ok}", (np.asarray([7, 3, 2, 1, 1]), np.asarray([ok]), np.asarray([64, 2])), {"rows": 9}
        )


def _bound_advance(u: float, counters: Array, ok: Array, cursor: Array = None, *, rows: int = 0) -> Advanced:
    return Advanced(0, None if cursor is None else 0)


contract(advance, examples=_examples_advance, bound=_bound_advance)


def _examples_tally(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        arrays = (
            rng.random(4),
            *(rng.random(1).astype(arithmetic_name(dtype)) for _ in range(2)),
            rng.random(1),
            np.asarray([ok]),
        )
        yield Example(f"ok {ok}", arrays, {"rows": 7})


def _bound_tally(u: float, sums: Array, value: Array, normaliser: Array, hits: Array, ok: Array, *, rows: int) -> Array:
    new = np.concatenate([value.astype(np.float64) * normaliser, normaliser, hits, [rows]])
    return 10 * 2.0**-53 * (np.abs(sums) + np.abs(new))


contract(tally, examples=_examples_tally, bound=_bound_tally)


def _flat(rng: Any, dtype: str, slots: int, columns: int) -> tuple[Any, ...]:
    """A training in 16 bits keeps float32 parameters, and their shadow."""
    wide = arithmetic_name(dtype)
    arrays = [rng.standard_normal(50).astype(wide) for _ in range(2)]
    states = [np.abs(rng.standard_normal(50)).astype(wide) + 1 for _ in range(slots)]
    table = (rng.random((3, columns)) * 0.9 + 0.1).astype(wide)
    control = table, np.asarray([9, 1, 0, 0, 0]), np.asarray([True]), rng.random(1).astype(wide)
    return (*arrays, *states, *control, *([arrays[0].astype(dtype)] if is_narrow(dtype) else ()))


def _cases(rng: Any, dtype: str, slots: int, columns: int, variants: dict[str, dict[str, Any]]) -> Iterator[Example]:
    for label, options in variants.items():
        absent = options.pop("absent", ())
        args = tuple(None if i in absent else a for i, a in enumerate(_flat(rng, dtype, slots, columns)))
        yield Example(label, args, {"border": 30, **options})
    skipped = list(_flat(rng, dtype, slots, columns))
    skipped[1][3], skipped[slots + 4] = np.nan, np.asarray([False])
    yield Example("skipped", tuple(skipped), {"border": 30})


def _examples_sgd(rng: Any, dtype: str) -> Iterator[Example]:
    yield from _cases(rng, dtype, 1, 1, {
        "plain": {"absent": (2,)}, "momentum": {"momentum": 0.9}, "Nesterov": {"momentum": 0.9, "nesterov": True},
        "weight decay": {"absent": (2,), "weight_decay": 0.1},
        "frozen": {"momentum": 0.9, "frozen": ((3, 9), (40, 50))},
    })  # fmt: skip


def _bound_sgd(u: float, p: Array, g: Array, velocity: Array, table: Array, *rest: Any, **options: Any) -> SgdState:
    size = np.abs(g) + np.abs(p) * options.get("weight_decay", 0.0)
    v = size if velocity is None else np.abs(velocity) + size
    moved = 10 * u * (np.abs(p) + table.max() * (v + size))
    return SgdState(moved, None if velocity is None else 10 * u * v, moved if _has_shadow(rest) else None)


def _has_shadow(rest: tuple[Any, ...]) -> bool:
    """Whether the arguments behind the table, (counters, ok, factor, shadow), have the last."""
    return len(rest) > 3 and rest[3] is not None


contract(sgd, examples=_examples_sgd, bound=_bound_sgd)


def _examples_rmsprop(rng: Any, dtype: str) -> Iterator[Example]:
    for example in _cases(rng, dtype, 3, 1, {
        "plain": {"absent": (3, 4)}, "centred": {"absent": (4,)}, "momentum": {"absent": (3,), "momentum": 0.9},
        "eps inside": {"absent": (3, 4), "eps_inside": True, "eps": 1e-3},
        "centred, inside, momentum": {"eps_inside": True, "eps": 1e-3, "momentum": 0.9},
        "weight decay": {"absent": (3, 4), "weight_decay": 0.1},
    }):  # fmt: skip
        p, g, square, mean, *rest = example.args  # a mean square well above the mean's square, as it is in a training
        yield example._replace(args=(p, g, square + 4, None if mean is None else mean / 4, *rest))


def _bound_rmsprop(
    u: float, p: Array, g: Array, square: Array, mean: Array, velocity: Array, table: Array, *rest: Any, **options: Any
) -> RmspropState:
    size = np.abs(g) + np.abs(p) * options.get("weight_decay", 0.0)
    floor = np.sqrt(0.5 * square)  # the examples keep the centred variance above half the mean square
    v = (0 if velocity is None else np.abs(velocity)) + size / floor * 2
    new_mean = None if mean is None else 10 * u * (np.abs(mean) + size)
    new_v = None if velocity is None else 10 * u * v
    moved = 10 * u * (np.abs(p) + table.max() * v)
    return RmspropState(moved, 10 * u * (square + size**2), new_mean, new_v, moved if _has_shadow(rest) else None)


contract(rmsprop, examples=_examples_rmsprop, bound=_bound_rmsprop)


def _examples_adam(rng: Any, dtype: str) -> Iterator[Example]:
    yield from _cases(rng, dtype, 3, 3, {
        "plain": {"absent": (4,)}, "AMSGrad": {}, "L2": {"absent": (4,), "weight_decay": 0.1},
        "decoupled": {"absent": (4,), "weight_decay": 0.1, "decoupled": True}, "frozen": {"frozen": ((0, 7),)},
    })  # fmt: skip


def _bound_adam(
    u: float, p: Array, g: Array, m: Array, v: Array, largest: Array, table: Array, *rest: Any, **options: Any
) -> Any:
    decay = options.get("weight_decay", 0.0)
    size, lr = np.abs(g) + np.abs(p) * decay, table[:, 0].max()
    c1, c2 = table[:, 1].min(), table[:, 2].max()
    move = (np.abs(m) + size) / c1 / np.sqrt(v * 0.9 / c2)
    second = 10 * u * (v + size**2)
    moved = 20 * u * (np.abs(p) + lr * (move + decay * np.abs(p)))
    most = None if largest is None else second + 10 * u * largest
    return AdamState(moved, 10 * u * (np.abs(m) + size), second, most, moved if _has_shadow(rest) else None)


contract(adam, examples=_examples_adam, bound=_bound_adam)


def _examples_average(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        a, b = (rng.standard_normal(20).astype(arithmetic_name(dtype)) for _ in range(2))
        yield Example(f"ok {ok}", (a, b, np.asarray([ok])), {"decay": 0.99})


def _bound_average(u: float, averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    return 10 * u * (np.abs(averaged) + np.abs(values))


contract(average, examples=_examples_average, bound=_bound_average)
