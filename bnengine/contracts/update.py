"""The contracts of the optimizers' rules and of a step's counters: examples and error bounds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..arrays.dtypes import arithmetic_name, is_narrow
from ..ops import REGISTRY, Example, Op
from ..ops.update import RULES, Advanced, Call, Rule, add_epoch_sums, average, count_step
from ._contract import contract, row_of

LEAST_DIVISOR = 2.0**-1022  # where nothing ever moved, 0 / LEAST_DIVISOR is 0


def _examples_advance(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        yield Example(f"ok {ok}", (np.asarray([7, 3, 2, 1, 1]), np.asarray([ok])))
        yield Example(
            f"data, ok {ok}", (np.asarray([7, 3, 2, 1, 1]), np.asarray([ok]), np.asarray([64, 2])), {"rows": 9}
        )


def _bound_advance(u: float, counters: Array, ok: Array, cursor: Array = None, *, rows: int = 0) -> Advanced:
    return Advanced(0, None if cursor is None else 0)


contract(count_step, examples=_examples_advance, bound=_bound_advance)


def _examples_tally(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        arrays = (
            rng.random(4),
            *(rng.random(1).astype(arithmetic_name(dtype)) for _ in range(2)),
            rng.random(1),
            np.asarray([ok]),
        )
        yield Example(f"ok {ok}", arrays, {"rows": 7})


def _bound_tally(u: float, sums: Array, value: Array, divisor: Array, correct: Array, ok: Array, *, rows: int) -> Array:
    new = np.concatenate([value.astype(np.float64) * divisor, divisor, correct, [rows]])
    return 10 * 2.0**-53 * (np.abs(sums) + np.abs(new))


contract(add_epoch_sums, examples=_examples_tally, bound=_bound_tally)


# -- the optimizers' rules


class Size(NamedTuple):
    """Upper bounds of what a rule adds up.

    Attributes:
        g: the gradient with its decay.
        decay: that decay alone.
        scalars: the smallest and largest value of each scalar of a step.
        u: the unit of rounding.
        slope: the gradient with its sign, for a rule that jumps.
        settings: those of the rule.
    """

    g: Array
    decay: Array
    scalars: tuple[tuple[float, float], ...]  # (least, most) of each
    u: float
    slope: Array
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RuleContract:
    """Examples and bounds for every version of a rule.

    Attributes:
        variants: options by label; "absent" names the slots that the variant lacks.
        sizes: from (size, *slots) to the largest move, and what is added up in each new slot.
        divides: from the new state to the slots that `sizes` divides by; in the first step the old ones are 0.
        typical: for a slot, makes a typical state of a random positive one.
        factor: the bound of a move in units of rounding.
    """

    variants: Mapping[str, Mapping[str, Any]]
    sizes: Callable[..., tuple[Array, tuple[Any, ...]]]
    divides: Callable[[Any], Mapping[str, Array]] = lambda _new: {}
    typical: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    factor: float = 10


def _sgd(size: Size, velocity: Array | None) -> Any:
    v = size.g if velocity is None else np.abs(velocity) + size.g
    return v + size.g, (v,)


def _rmsprop(size: Size, square: Array, mean: Array | None, velocity: Array | None) -> Any:
    floor = np.sqrt(0.5 * square)  # the examples keep the centered variance above half the mean square
    v = (0 if velocity is None else np.abs(velocity)) + size.g / floor * 2
    return v, (square + size.g**2, None if mean is None else np.abs(mean) + size.g, v)


def _adam(size: Size, m: Array, v: Array, largest: Array | None) -> Any:
    (least_c1, _), (_, most_c2) = size.scalars
    first, second = np.abs(m) + size.g, v + size.g**2
    move = first / least_c1 / np.sqrt(v * 0.9 / most_c2)
    return move + size.decay, (first, second, None if largest is None else second + largest)


def _lion(size: Size, m: Array) -> Any:
    share, first = size.settings["beta1"], np.abs(m) + size.g
    doubtful = np.abs(share * m + (1 - share) * size.slope) < 10 * size.u * first  # of either sign
    return 1 + np.where(doubtful, 2 / (10 * size.u), 0), (first,)


RULE_CONTRACTS = {
    "sgd": RuleContract(
        {
            "plain": {"absent": ("velocity",)},
            "momentum": {"momentum": 0.9},
            "Nesterov": {"momentum": 0.9, "nesterov": True},
            "weight decay": {"absent": ("velocity",), "weight_decay": 0.1},
            "frozen": {"momentum": 0.9, "frozen": ((3, 9), (40, 50))},
        },
        _sgd,
    ),
    "rmsprop": RuleContract(
        {
            "plain": {"absent": ("mean", "velocity")},
            "centered": {"absent": ("velocity",)},
            "momentum": {"absent": ("mean",), "momentum": 0.9},
            "eps inside": {"absent": ("mean", "velocity"), "eps_inside": True, "eps": 1e-3},
            "centered, inside, momentum": {"eps_inside": True, "eps": 1e-3, "momentum": 0.9},
            "weight decay": {"absent": ("mean", "velocity"), "weight_decay": 0.1},
        },
        _rmsprop,
        divides=lambda new: {"square": 2 * (new.square - (0 if new.mean is None else new.mean**2))},
        typical={"square": lambda a: a + 4, "mean": lambda a: a / 4},  # the variance is most of the mean square
    ),
    "adam": RuleContract(
        {
            "plain": {"absent": ("largest",)},
            "AMSGrad": {},
            "L2": {"absent": ("largest",), "weight_decay": 0.1},
            "decoupled": {"absent": ("largest",), "weight_decay": 0.1, "decoupled": True},
            "frozen": {"frozen": ((0, 7),)},
        },
        _adam,
        divides=lambda new: {"v": new.v / 0.9},
        factor=20,
    ),
    "lion": RuleContract(
        {
            "plain": {},
            "L2": {"weight_decay": 0.1},
            "decoupled": {"weight_decay": 0.1, "decoupled": True, "beta1": 0.8, "beta2": 0.7},
            "frozen": {"frozen": ((0, 7),)},
        },
        _lion,
    ),
}


def _contract_of(rule: Rule) -> RuleContract:
    return row_of(RULE_CONTRACTS, rule.name, what="rule", write="RULE_CONTRACTS of bnengine/contracts/update.py")


def _flat(rng: Any, dtype: str, rule: Rule) -> Call:
    """With 16-bit activations, parameters are float32 and have a 16-bit copy."""
    wide = arithmetic_name(dtype)
    p, g = (rng.standard_normal(50).astype(wide) for _ in range(2))
    states = {name: np.abs(rng.standard_normal(50)).astype(wide) + 1 for name in rule.slots}
    table = (rng.random((3, rule.columns)) * 0.9 + 0.1).astype(wide)
    control = table, np.asarray([9, 1, 0, 0, 0]), np.asarray([True]), rng.random(1).astype(wide)
    copy16 = p.astype(dtype) if is_narrow(dtype) else None
    return Call(p, g, typical(rule, states), *control, copy16)


def typical(rule: Rule, slots: Mapping[str, Array | None]) -> tuple[Array | None, ...]:
    """Return a state like that of a training, from random positive slots."""
    typical_of = _contract_of(rule).typical
    return tuple(a if a is None or name not in typical_of else typical_of[name](a) for name, a in slots.items())


def _examples_of(rule: Rule) -> Callable[[Any, str], Iterator[Example]]:
    """Return the examples of a rule: every variant, and a skipped step with NaN."""

    def examples(rng: Any, dtype: str) -> Iterator[Example]:
        for label, options in _contract_of(rule).variants.items():
            absent, settings = options.get("absent", ()), {k: v for k, v in options.items() if k != "absent"}
            call = _flat(rng, dtype, rule)
            there = tuple(None if n in absent else a for n, a in zip(rule.slots, call.slots, strict=True))
            yield Example(label, call._replace(slots=there).args(), {"decay_end": 30, **settings})
        skipped = _flat(rng, dtype, rule)._replace(ok=np.asarray([False]))
        skipped.gradients[3] = np.nan
        yield Example("skipped", skipped.args(), {"decay_end": 30})

    return examples


def _bound_of(rule: Rule) -> Callable[..., Any]:
    """Return the bound of a rule's op, from the sizes of what it adds up."""
    row = _contract_of(rule)

    def bound(
        u: float, *args: Any, weight_decay: float = 0.0, decoupled: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        call = rule.call(*args)
        p, g, table = np.abs(call.parameters), np.abs(call.gradients), call.table
        l2, shrinking = p * (0.0 if decoupled else weight_decay), p * (weight_decay if decoupled else 0.0)
        scalars = tuple((column.min(), column.max()) for column in table.T[1:])
        decays = (np.arange(p.size) < options.get("decay_end", 0)) & (not decoupled)
        slope = call.gradients * call.factor + call.parameters * weight_decay * decays
        move, sums = row.sizes(Size(g + l2, l2, scalars, u, slope, {**rule.settings, **options}), *call.slots)
        moved = row.factor * u * (p + table.T[0].max() * (move + shrinking))
        states = [None if old is None else 10 * u * new for old, new in zip(call.slots, sums, strict=True)]
        return rule.state(moved, *states, None if call.copy16 is None else moved)

    return bound


def by_new_state(op: Op[Any], args: tuple[Any, ...], new: Any) -> tuple[Any, ...]:
    """Return the arguments for an op's bound, with new slots that a rule divides by, since the first old ones are 0."""
    if op.name not in RULE_CONTRACTS:
        return args
    call, divisors = RULES[op.name].call(*args), RULE_CONTRACTS[op.name].divides(new)
    slots = zip(RULES[op.name].slots, call.slots, strict=True)
    put = tuple(np.maximum(divisors[n], LEAST_DIVISOR) if n in divisors else a for n, a in slots)
    return call._replace(slots=put).args()


for _rule in RULES.values():
    contract(REGISTRY[_rule.name], examples=_examples_of(_rule), bound=_bound_of(_rule))


def _examples_average(rng: Any, dtype: str) -> Iterator[Example]:
    for ok in (True, False):
        a, b = (rng.standard_normal(20).astype(arithmetic_name(dtype)) for _ in range(2))
        yield Example(f"ok {ok}", (a, b, np.asarray([ok])), {"decay": 0.99})


def _bound_average(u: float, averaged: Array, values: Array, ok: Array, *, decay: float) -> Array:
    return 10 * u * (np.abs(averaged) + np.abs(values))


contract(average, examples=_examples_average, bound=_bound_average)
